import pytest
import torch
from torch import nn

from fedapp.common.errors import ConfigError
from fedapp.data.source import Schema
from fedapp.models import fit
from fedapp.models.input_layer import InputLayer, assemble
from fedapp.models.mlp import mlp

IMAGES, TABLE = Schema((1, 8, 8), ("a", "b", "c")), Schema((6,), ("a", "b", "c"))


def check_fits(model, schema):
    fit.check_fits(model, lambda count: torch.zeros(count, *schema.input_shape), (schema.num_outputs,))


class Pair(nn.Module):
    def forward(self, x):
        return x, x


class TrainsDifferently(nn.Linear):
    def forward(self, x):
        return super().forward(x)[:, :1] if self.training else super().forward(x)


class Silent(nn.Module):
    def forward(self, x):
        raise NotImplementedError


def test_a_fitting_model_passes_with_and_without_an_input_layer():
    net = mlp(TABLE, hidden=[4], dropout=0.5)
    check_fits(net, TABLE)
    check_fits(assemble(net, InputLayer(TABLE)), TABLE)
    with pytest.raises(ConfigError):
        check_fits(net, IMAGES)


def test_nothing_is_changed():
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 3))
    net[1].eval()
    with torch.no_grad():
        net[1].running_mean.fill_(3.0)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    generator = torch.get_rng_state()
    check_fits(net, IMAGES)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert [module.training for module in net.modules()] == [True, True, False, True, True]
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_training_flags_come_back_after_a_failure():
    net = assemble(nn.Linear(5, 3), InputLayer(TABLE)).eval()
    with pytest.raises(ConfigError):
        check_fits(net, TABLE)
    assert not any(module.training for module in net.modules())


@pytest.mark.parametrize(
    ("net", "schema", "message"),
    [
        (nn.Linear(5, 3), TABLE, r"^model: Linear cannot take examples of shape \(6,\): .*mat1 and mat2.* model=...$"),
        (nn.Linear(6, 4), TABLE, r"^model: Linear gives shape \(2, 4\) .* needs \(2, 3\). .* last layer 3 outputs"),
        (nn.Conv2d(1, 3, 9), IMAGES, r"^model: Conv2d cannot take .* \(1, 8, 8\): .*model=... or data.size=...$"),
        (nn.Conv2d(1, 3, 3), IMAGES, r"^model: Conv2d gives shape \(2, 3, 6, 6\) for two examples .* \(1, 8, 8\)"),
        (Pair(), TABLE, r"^model: Pair gives a tuple, the task needs a tensor of shape \(2, 3\)"),
        (TrainsDifferently(6, 3), TABLE, r"^model: TrainsDifferently gives shape \(2, 1\)"),
        (
            Silent(),
            TABLE,
            r"^model: Silent cannot take examples of shape \(6,\): NotImplementedError \(.*/test_fit.py, line",
        ),
    ],
    ids=["input", "output", "too small", "feature map", "no tensor", "training mode", "no text"],
)
def test_what_does_not_fit_is_explained_in_one_line(net, schema, message):
    with pytest.raises(ConfigError, match=message) as caught:
        check_fits(assemble(net, InputLayer(schema)), schema)
    assert "\n" not in str(caught.value)


def test_the_task_says_what_inputs_and_outputs_are():
    """Tokens in, an output of two dimensions out."""
    net = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 7))
    fit.check_fits(net, lambda count: torch.zeros(count, 3, dtype=torch.int64), (3, 7))
    with pytest.raises(ConfigError, match=r"Sequential cannot take examples of shape \(3,\)"):
        fit.check_fits(net, lambda count: torch.zeros(count, 3), (3, 7))
    with pytest.raises(ConfigError, match=r"gives shape \(2, 3, 7\) .* needs \(2, 3, 8\). .* last layer 8 outputs"):
        fit.check_fits(net, lambda count: torch.zeros(count, 3, dtype=torch.int64), (3, 8))
