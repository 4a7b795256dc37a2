"""DP-SGD on adapters: of a frozen language model, each example's gradient is made, and clipped, of adapters alone."""

import json
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import run_in_process
from language_models import ADAPTED, CAUSAL, made_of

from fedapp.common.errors import ConfigError
from fedapp.config import compose
from fedapp.learning.build import Parts, build_parts
from fedapp.models.shared_state import shared_state
from fedapp.privacy.clipping import OuterProducts
from fedapp.privacy.dp_training import PrivateTraining
from fedapp.privacy.noise import make_noise
from fedapp.privacy.opacus_internals import per_example_gradients, validation_errors, wrapped
from fedapp.server.check_config import check_config

pytestmark = pytest.mark.slow  # the library takes seconds to import

TASKS = {
    "gpt2": CAUSAL,
    "llama": made_of(CAUSAL, "llama"),
    "bert": ADAPTED,
    "bert in bfloat16": f"{ADAPTED} model.dtype=bfloat16",
}
each = pytest.mark.parametrize("overrides", TASKS.values(), ids=TASKS)
in_every_mode = pytest.mark.parametrize("mode", ["hooks", "ghost"])


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():  # torch.func warns of autocast on CPUs
        warnings.filterwarnings("ignore", message=".*Autocast", category=UserWarning)
        yield


def parts_of(overrides: str) -> Parts:
    """With adapters that are no longer at their first values, of which half are 0."""
    parts = build_parts(compose(shlex.split(overrides)))
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in shared_state(parts.model).values():
            value += 0.1 * torch.randn(value.shape, generator=random)
    return parts


def private(parts: Parts, **options: Any) -> PrivateTraining:
    given: dict[str, Any] = {
        "loss": parts.task.loss_per_example,
        "optimizer": lambda p: torch.optim.SGD(p, lr=0.1),
        "noise": lambda: make_noise("seeded_for_tests", 7),
        "noise_multiplier": 0.0,
        "max_grad_norm": 1e6,
        "sample_rate": 1.0,
        "steps": 2,
        "batch_size": 4,
        "public_count": lambda count: count,
    }
    return PrivateTraining(**{**given, **options})


@each
@in_every_mode
def test_the_gradient_of_each_example_is_its_own(overrides: str, mode: str) -> None:
    parts = parts_of(overrides)
    model, data = parts.model.train(), parts.source.pooled().train.take(range(5))
    assert validation_errors(model) == []
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with wrapped(model, mode=mode) as hooked:
        losses = parts.task.loss_per_example(hooked(data.inputs), data.targets)
        made = per_example_gradients(wanted, losses)
    for row in range(5):
        one = data.take([row])
        alone = torch.autograd.grad(parts.task.loss(model(one.inputs), one.targets), wanted)
        for found, expected in zip(made, alone, strict=True):
            factors = isinstance(found, OuterProducts)
            gradient = torch.einsum("bo,bi->boi", found.left, found.right) if factors else found
            close = 1e-2 if "bfloat16" in overrides else 1e-5
            assert torch.allclose(gradient[row], expected, atol=close * float(expected.abs().max() + 1e-3)), row


@each
def test_no_noise_and_no_clipping_is_plain_descent(overrides: str) -> None:
    private_parts, plain_parts = parts_of(overrides), parts_of(overrides)
    data = plain_parts.source.pooled().train.take(range(6))
    private(private_parts)(private_parts.model, data, seed=())
    model = plain_parts.model.train()
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for _ in range(2):
        losses = plain_parts.task.loss_per_example(model(data.inputs), data.targets)
        for parameter, gradient in zip(wanted, torch.autograd.grad(losses.mean(), wanted), strict=True):
            parameter.data -= 0.1 * gradient
    found, expected = shared_state(private_parts.model), shared_state(model)
    close = 1e-3 if "bfloat16" in overrides else 1e-5
    assert all(torch.allclose(found[name], expected[name], atol=close) for name in expected)


@each
def test_no_example_moves_the_adapters_further_than_its_bound(overrides: str) -> None:
    parts = parts_of(overrides)
    data = parts.source.pooled().train.take([0])
    before = {name: value.clone() for name, value in shared_state(parts.model).items()}
    frozen = {name: value.clone() for name, value in parts.model.state_dict().items() if name not in before}
    private(parts, max_grad_norm=0.01, steps=1)(parts.model, data, seed=())
    after = shared_state(parts.model)
    moved = sum(float((after[name] - before[name]).double().square().sum()) for name in before) ** 0.5
    assert 0 < moved <= 0.1 * 0.01 * 1.001
    state = parts.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in frozen.items())


def test_gradient_checkpointing_is_refused_by_name() -> None:
    with pytest.raises(
        ConfigError, match=r"privacy=dp_sgd: gradient checkpointing .*model\.gradient_checkpointing=false"
    ):
        check_config(compose(shlex.split(f"{ADAPTED} model.gradient_checkpointing=true privacy=dp_sgd")))


def test_a_private_run_trains_adapters_and_says_what_it_spent(tmp_path: Path) -> None:
    overrides = f"{ADAPTED} privacy=dp_sgd federation.num_clients=4 federation.num_rounds=1"
    summary = json.loads((run_in_process(tmp_path / "run", overrides) / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["epsilon_max"] > 0
