"""Which of Opacus's ways is chosen, and which models are refused before a run."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from torch import Tensor, nn

from fedapp.common.errors import ConfigError
from fedapp.config import Config, compose
from fedapp.data.source import Examples
from fedapp.learning.build import build_parts
from fedapp.privacy.dp_sgd import DpSgd
from fedapp.privacy.dp_training import PrivateTraining
from fedapp.privacy.limits import OwnLimits
from fedapp.privacy.noise import make_noise
from fedapp.privacy.option import privacy_of
from fedapp.privacy.plan import Plan
from fedapp.privacy.trainable import choose_mode, working_mode


@pytest.mark.parametrize(("width", "batch_size", "mode"), [(20, 16, "ew"), (200, 64, "ghost"), (20, 10_000, "ghost")])
def test_large_gradients_are_not_made_for_every_example(width: int, batch_size: int, mode: str) -> None:
    model = nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))
    found, reason = choose_mode(model, batch_size)
    assert found == mode
    assert str(batch_size) in reason


def test_frozen_parameters_do_not_count() -> None:
    model = nn.Sequential(nn.Linear(784, 2000), nn.Linear(2000, 10))
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    assert choose_mode(model, 32)[0] == "ew"


TRAINING = PrivateTraining(
    loss=lambda outputs, targets: F.cross_entropy(outputs, targets, reduction="none"),
    optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0),
    noise=lambda: make_noise("os_entropy"),
    noise_multiplier=1.0,
    max_grad_norm=1.0,
    sample_rate=0.1,
    steps=9,
    batch_size=1,
    public_count=lambda count: count,
)
TWO = Examples(torch.zeros(2, 3, 4), torch.zeros(2).long())


class Scaled(nn.Module):
    """A parameter of its own beside its layer, and chance of its own, as ConvNeXt's blocks have."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(12, 2), nn.Parameter(torch.ones(2))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs.flatten(1))
        return outputs * self.scale * torch.bernoulli(torch.full((2,), 0.5))


def with_rms_norm() -> nn.Module:
    """torch's expanded weights know nothing of RMSNorm."""
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.RMSNorm(5), nn.ReLU(), nn.Linear(5, 2), nn.Dropout(0.5))


def test_a_mode_that_cannot_train_the_model_gives_way() -> None:
    model = with_rms_norm().eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    mode, reason = working_mode(TRAINING, model, TWO, wanted="auto", fastest=("ew", "measured"))
    assert mode != "ew"
    assert "ew, which would be faster" in reason
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    replace(TRAINING, mode=mode)(model, TWO, seed=())  # and it does train it
    assert working_mode(TRAINING, model, TWO, wanted="auto", fastest=("ghost", "measured")) == ("ghost", "measured")


def test_a_mode_that_is_asked_for_and_cannot_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"privacy.grad_sample_mode=ew: .* set it to auto"):
        working_mode(TRAINING, with_rms_norm(), TWO, wanted="ew", fastest=("ghost", "measured"))


def test_a_model_that_no_mode_can_train_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"in any of its modes .* Choose another model"):
        working_mode(TRAINING, Scaled(), TWO, wanted="auto", fastest=("ew", "measured"))


def plan_of(config: Config) -> Plan:
    privacy = privacy_of(config)
    assert isinstance(privacy, DpSgd)
    return privacy.plan(config, build_parts(config), OwnLimits())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "remedy"),
    [
        ("task=transfer model.trainable=last_k", "model.trainable=head"),
        ("model=torchvision model.name=resnet18 model.norm=batch", "model.norm=group"),
    ],
)
def test_the_remedy_for_batch_norm_repairs_the_model(overrides: str, remedy: str) -> None:
    config = compose(f"privacy=dp_sgd {overrides}".split())
    with pytest.raises(ConfigError, match=remedy):
        plan_of(config)
    repaired = compose(f"privacy=dp_sgd {overrides} {remedy}".split())
    plan_of(repaired)


@pytest.mark.parametrize("overrides", ["model=mlp model.dropout=0.5", "model=cnn", "model=cnn model.norm=none"])
@pytest.mark.parametrize("mode", ["hooks", "functorch", "ew", "ghost"])
def test_every_mode_trains_the_projects_models(overrides: str, mode: str) -> None:
    config = compose(f"privacy=dp_sgd privacy.accountant=rdp {overrides} privacy.grad_sample_mode={mode}".split())
    plan = plan_of(config)
    assert (plan.mode, plan.reason) == (mode, "as configured")


def test_noise_that_spends_the_budget_in_one_round_is_refused() -> None:
    for noise in (0, 0.1):
        config = compose(["privacy=dp_sgd", f"privacy.noise_multiplier={noise}", "privacy.accountant=rdp"])
        with pytest.raises(ConfigError, match=r"privacy.target_epsilon=8.0: one round alone costs .* would train"):
            plan_of(config)
