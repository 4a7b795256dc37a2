import pytest
import torch
from torch import nn

from fedapp.common.errors import ConfigError
from fedapp.data.source import Schema
from fedapp.models.cnn import cnn
from fedapp.models.linear import linear
from fedapp.models.mlp import mlp
from fedapp.models.normalization import group_norm

TEN = tuple("0123456789")
DIGITS, MNIST = Schema((1, 8, 8), TEN), Schema((1, 28, 28), TEN)
TABLE, PRICES = Schema((30,), ("benign", "malignant")), Schema((13,))
SMALL_CNN = {"channels": [32, 64], "kernel_size": 3, "hidden": 64, "norm": "group", "groups": 8}


def count(net):
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(("schema", "outputs"), [(DIGITS, 10), (TABLE, 2), (PRICES, 1)])
def test_linear_and_mlp_take_any_shape_and_give_the_task_s_outputs(schema, outputs):
    inputs = torch.randn(3, *schema.input_shape)
    for net in (linear(schema), mlp(schema, hidden=[8], dropout=0.1), mlp(schema, hidden=[], dropout=0.0)):
        assert net(inputs).shape == (3, outputs)


@pytest.mark.parametrize(
    ("net", "parameters"),
    [
        (linear(DIGITS), 650),
        (mlp(DIGITS, hidden=[200, 200], dropout=0.0), 55_210),
        (mlp(MNIST, hidden=[200, 200], dropout=0.0), 199_210),
        (cnn(DIGITS, **SMALL_CNN), 36_106),
        (cnn(MNIST, channels=[32, 64], kernel_size=5, hidden=512, norm="none", groups=8), 1_663_370),
    ],
    ids=["logistic regression", "mlp", "2NN", "small cnn", "FedAvg CNN"],
)
def test_parameter_counts(net, parameters):
    assert count(net) == parameters


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_mlp_drops_in_training_only_and_only_if_asked(dropout):
    net, rows = mlp(TABLE, hidden=[64], dropout=dropout), torch.randn(2, 30)
    assert torch.equal(net.eval()(rows), net(rows))
    assert torch.equal(net.train()(rows), net(rows)) == (dropout == 0.0)


@pytest.mark.parametrize("side", [(8, 8), (9, 13), (28, 28), (8, 200), (100, 100)])
@pytest.mark.parametrize("hidden", [16, None])
def test_cnn_takes_any_side_from_8_and_its_head_stays_small(side, hidden):
    schema = Schema((3, *side), TEN)
    net = cnn(schema, channels=[4, 8, 8], kernel_size=3, hidden=hidden, norm="group", groups=4)
    assert net(torch.randn(2, 3, *side)).shape == (2, 10)
    first = next(layer for layer in net.get_submodule("head") if isinstance(layer, nn.Linear))
    assert first.in_features <= 8 * 8 * 8


def test_cnn_has_group_norm_after_each_convolution_if_asked_and_never_batch_norm():
    def norms(norm):
        net = cnn(DIGITS, **{**SMALL_CNN, "norm": norm})
        return [type(layer).__name__ for layer in net.modules() if "Norm" in type(layer).__name__]

    assert norms("none") == []
    assert norms("group") == ["GroupNorm", "GroupNorm"]


@pytest.mark.parametrize(("channels", "groups", "used"), [(64, 8, 8), (30, 8, 6), (7, 4, 1), (4, 32, 4)])
def test_group_norm_uses_the_largest_divisor(channels, groups, used):
    assert group_norm(channels, groups).num_groups == used


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": [32, 0]}, r"^model.channels=\[32, 0\]: must be a list of positive integers"),
        ({"channels": 32}, r"^model.channels=32: must be a list of positive integers"),
        ({"kernel_size": 4}, r"^model.kernel_size=4: must be an odd positive integer"),
        ({"hidden": 0}, r"^model.hidden=0: must be a positive integer or null"),
        ({"norm": "batch"}, r"^model.norm=batch: must be one of none, group"),
        ({"groups": 0}, r"^model.groups=0: must be a positive integer"),
        ({"kernel_size": 9}, r"^model=cnn: images of 8 x 8 are too small.* at least 9 x 9"),
    ],
)
def test_cnn_refuses_values_that_make_no_network(changes, message):
    with pytest.raises(ConfigError, match=message):
        cnn(DIGITS, **{**SMALL_CNN, **changes})


def test_cnn_refuses_tables_and_tiny_images():
    with pytest.raises(ConfigError, match=r"^model=cnn: takes images .* shape \(30,\). Choose model=mlp"):
        cnn(TABLE, **SMALL_CNN)
    with pytest.raises(ConfigError, match=r"^model=cnn: images of 28 x 4 are too small.* at least 8 x 8. .*data.size"):
        cnn(Schema((1, 28, 4), TEN), **SMALL_CNN)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": [-1]}, r"^model.hidden=\[-1\]: must be a list of positive integers"),
        ({"hidden": ["wide"]}, r"^model.hidden=\['wide'\]: must be a list of positive integers"),
        ({"dropout": 1.0}, r"^model.dropout=1.0: must be a share of at least 0 and below 1"),
        ({"dropout": "half"}, r"^model.dropout=half: must be a share"),
    ],
)
def test_mlp_refuses_values_that_make_no_network(changes, message):
    with pytest.raises(ConfigError, match=message):
        mlp(TABLE, **{"hidden": [8], "dropout": 0.0, **changes})


def test_weights_follow_the_caller_s_seed():
    def first_weight(seed):
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            return next(cnn(DIGITS, **SMALL_CNN).parameters())

    assert torch.equal(first_weight(1), first_weight(1))
    assert not torch.equal(first_weight(1), first_weight(2))
