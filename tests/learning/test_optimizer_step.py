"""Steps by gradients as values: the same bits as torch's own `backward` and `step`."""

import subprocess
import sys
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from fedapp.common.seeding import seeded
from fedapp.learning.optimizer_step import make_optimizer, stepper


def net() -> nn.Sequential:
    with seeded(0, "optimizer step"):
        return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.SGD, {"lr": 0.1}),
        (torch.optim.SGD, {"lr": 0.1, "maximize": True}),
        (torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.1}),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.5, "dampening": 0.3, "maximize": True}),
        (torch.optim.AdamW, {"lr": 0.01}),
        (torch.optim.Adagrad, {"lr": 0.01}),
    ],
)
def test_the_bits_are_those_of_torch(kind: Any, options: dict[str, Any]) -> None:
    ours, torchs = net(), net()
    optimizer = make_optimizer(lambda p: kind(p, **options), list(ours.parameters()))
    step, other = stepper(optimizer), kind(torchs.parameters(), **options)
    with seeded(1, "optimizer step"):
        batches = [torch.randn(4, 5) for _ in range(6)]
    for number, batch in enumerate(batches):
        for group in (*optimizer.param_groups, *other.param_groups):
            group["lr"] = options["lr"] / (1 + number)  # a schedule
        step(torch.autograd.grad(ours(batch).square().sum(), list(ours.parameters())))
        other.zero_grad()
        torchs(batch).square().sum().backward()
        other.step()
    for mine, its in zip(ours.parameters(), torchs.parameters(), strict=True):
        assert torch.equal(mine, its)
    assert optimizer.state_dict()["state"].keys() == other.state_dict()["state"].keys()
    for index, slots in other.state_dict()["state"].items():
        for name, value in slots.items():
            assert torch.equal(torch.as_tensor(optimizer.state_dict()["state"][index][name]), torch.as_tensor(value))


def test_a_parameter_without_a_gradient_stays_as_it_is() -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    for options in ({"lr": 0.5, "momentum": 0.9, "weight_decay": 0.1}, {"lr": 0.5}):
        optimizer = make_optimizer(lambda p, options=options: torch.optim.SGD(p, **options), [unused, used])
        before = used.detach().clone()
        stepper(optimizer)([None, torch.ones(2)])
        assert torch.equal(unused, torch.ones(2))
        assert not torch.equal(used, before)


def test_momentum_is_where_a_checkpoint_finds_it() -> None:
    parameter, again = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = make_optimizer(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), [parameter])
    stepper(optimizer)([torch.full((2,), 3.0)])
    resumed = make_optimizer(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), [again])
    again.data.copy_(parameter.data)
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    for one in (optimizer, resumed):
        stepper(one)([torch.full((2,), 2.0)])
    assert torch.equal(parameter, again)
    assert parameter.tolist() == pytest.approx([1 - 0.1 * 3 - 0.1 * (0.9 * 3 + 2)] * 2)


@pytest.mark.slow
def test_plain_sgd_does_not_import_the_compiler() -> None:
    """torch._dynamo takes a second and more to import, in every process of a run."""
    program = """
import sys
import torch
from fedapp.learning.optimizer_step import make_optimizer, stepper
optimizer = make_optimizer(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), [torch.nn.Parameter(torch.ones(2))])
stepper(optimizer)([torch.ones(2)])
optimizer.load_state_dict(optimizer.state_dict())
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
