import pytest
import torch
from torch import nn

from fedapp.common.errors import DataError
from fedapp.data.source import Scaling, Schema
from fedapp.models.input_layer import InputLayer, TokenLayer, assemble, input_layer
from fedapp.models.linear import linear

PIXELS = Schema((1, 2, 2), classes=("a", "b"), scaling=Scaling("fixed", offset=1.0, scale=4.0))
TABLE = Schema((3,), classes=("a", "b"), features=("age", "height", "site"), scaling=Scaling("federated"), impute=True)
MEAN, STD = torch.tensor([50.0, 1.7, 3.0]), torch.tensor([10.0, 0.5, 0.0])


def test_fixed_scaling_of_uint8_is_exact_float32():
    pixels = torch.tensor([[[[1, 5], [9, 255]]]], dtype=torch.uint8)
    output = InputLayer(PIXELS)(pixels)
    assert output.dtype == torch.float32
    assert output.flatten().tolist() == [0.0, 1.0, 2.0, 63.5]


def test_federated_layer_passes_inputs_through_until_it_has_statistics():
    rows = torch.randn(4, 3)
    assert torch.equal(InputLayer(TABLE)(rows), rows)


def test_statistics_standardise_and_a_constant_feature_becomes_zero():
    layer = InputLayer(TABLE)
    layer.set_statistics(MEAN, STD)
    assert layer(torch.tensor([[60.0, 1.2, 3.0]]))[0].tolist() == pytest.approx([1.0, -1.0, 0.0], abs=1e-6)
    assert layer.scale.tolist() == [10.0, 0.5, 1.0]


def test_what_rounding_leaves_of_a_constant_is_not_blown_up():
    layer = InputLayer(TABLE)
    layer.set_statistics(torch.tensor([1e6, 0.0, 1.0]), torch.tensor([1e-3, 1e-9, 1e-3]))
    assert layer.scale.tolist() == pytest.approx([1.0, 1e-9, 1e-3])


def test_nan_becomes_the_mean_only_where_the_schema_imputes():
    row = torch.tensor([[float("nan"), 2.2, 3.0]])
    imputing, strict = InputLayer(TABLE), InputLayer(Schema((3,), scaling=Scaling("federated")))
    for layer in (imputing, strict):
        layer.set_statistics(MEAN, STD)
    assert imputing(row)[0].tolist() == pytest.approx([0.0, 1.0, 0.0], abs=1e-6)
    assert strict(row).isnan().tolist() == [[True, False, False]]


def test_infinity_is_not_imputed():
    row = torch.tensor([[float("inf"), 0.0, 0.0]])
    assert InputLayer(TABLE)(row)[0, 0] == float("inf")


def test_statistics_travel_in_the_state_dict():
    source, copy = (assemble(linear(TABLE), InputLayer(TABLE)) for _ in range(2))
    source.get_submodule("input").set_statistics(MEAN, STD)  # type: ignore[operator]
    state = source.state_dict()
    assert {key: tuple(value.shape) for key, value in state.items() if key.startswith("input")} == {
        "input.offset": (3,),
        "input.scale": (3,),
    }
    copy.load_state_dict(state)
    rows = torch.randn(5, 3)
    assert torch.equal(copy(rows), source(rows))


def test_fixed_scaling_has_scalar_buffers_and_no_parameters():
    layer = InputLayer(PIXELS)
    assert {key: tuple(value.shape) for key, value in layer.state_dict().items()} == {"offset": (), "scale": ()}
    assert list(layer.parameters()) == []


def test_statistics_of_a_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"mean has shape \(2,\) and std \(3,\), the input layer needs \(3,\)"):
        InputLayer(TABLE).set_statistics(MEAN[:2], STD)


@pytest.mark.parametrize("broken", ["mean", "std"])
def test_statistics_that_are_not_finite_name_the_feature_and_change_nothing(broken):
    layer = InputLayer(TABLE)
    values = {"mean": MEAN.clone(), "std": STD.clone()}
    values[broken][1] = float("nan")
    with pytest.raises(DataError, match="feature 'height': has no finite mean"):
        layer.set_statistics(**values)
    assert (layer.offset.tolist(), layer.scale.tolist()) == ([0.0] * 3, [1.0] * 3)


def test_per_example_gradients_under_vmap_equal_those_of_single_examples():
    model = assemble(nn.Linear(3, 1), InputLayer(TABLE))
    model.get_submodule("input").set_statistics(MEAN, STD)  # type: ignore[operator]
    parameters = {key: value.detach() for key, value in model.named_parameters()}
    rows = torch.randn(4, 3)
    rows[0, 0] = float("nan")

    def loss(parameters, row):
        return torch.func.functional_call(model, parameters, (row[None],)).square().sum()

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, rows)
    for index, row in enumerate(rows):
        alone = torch.func.grad(loss)(parameters, row)
        torch.testing.assert_close({key: value[index] for key, value in gradients.items()}, alone)


def test_tokens_stay_as_they_are_and_numbers_do_not():
    tokens = torch.tensor([[0, 2], [1, 2]])
    layer = input_layer(Schema((2,), classes=("a", "b"), vocabulary=3))
    assert isinstance(layer, TokenLayer)
    assert layer(tokens) is tokens
    drawn = layer.random_inputs((200, 2), torch.Generator().manual_seed(0))
    assert (drawn.dtype, drawn.unique().tolist()) == (torch.int64, [0, 1, 2])
    assert input_layer(Schema((2,), classes=("a", "b")))(tokens).dtype == torch.float32
