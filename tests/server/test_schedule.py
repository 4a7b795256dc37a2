"""Learning rates over rounds: closed forms, and that clients and server go by them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import InProcessGrid, run_on
from torch import nn

from fedapp.config import compose, instantiate
from fedapp.learning import optimizer_step
from fedapp.server.schedule import LearningRateSchedule
from fedapp.server.server_optimizer import ServerOptimizer

pytestmark = pytest.mark.slow  # whole federations

FORMS: dict[str, Callable[[int], float]] = {
    "constant": lambda r: 1.0,
    "cosine": lambda r: (1 + math.cos(math.pi * (r - 1) / 40)) / 2,
    "step": lambda r: 0.5 ** ((r - 1) // 20),
    "exponential": lambda r: 0.98 ** (r - 1),
    "warmup": lambda r: min(1.0, 0.1 + 0.9 * (r - 1) / 5),
}


def schedule(name: str) -> LearningRateSchedule:
    config = compose([f"lr_schedule@client_lr={name}", "federation.num_rounds=40"])
    return LearningRateSchedule(instantiate("client_lr", config.client_lr, partial=True))


@pytest.mark.parametrize("name", FORMS)
def test_committed_schedules(name: str) -> None:
    made = schedule(name)
    assert [made.factor(r) for r in range(1, 41)] == pytest.approx([FORMS[name](r) for r in range(1, 41)], abs=1e-12)


@pytest.mark.parametrize("name", FORMS)
def test_a_resumed_run_gets_the_same_factors(name: str) -> None:
    through, resumed = schedule(name), schedule(name)
    factors = [through.factor(r) for r in range(1, 41)]
    assert [resumed.factor(r) for r in range(17, 41)] == factors[16:]
    assert resumed.factor(3) == factors[2]


def test_the_servers_step_is_scaled() -> None:
    state, mean = {"w": torch.zeros(2)}, {"w": torch.tensor([1.0, -2.0], dtype=torch.float64)}
    optimizer = ServerOptimizer(["w"], lambda parameters: torch.optim.SGD(parameters, lr=0.5))
    for factor in (1.0, 0.1, 0.4):
        assert torch.allclose(optimizer.step(state, mean, factor)["w"], 0.5 * factor * mean["w"].float())


def test_clients_and_server_go_by_their_schedules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: dict[str, list[float]] = {"client": [], "server": []}
    step = optimizer_step._sgd_step

    def noting(optimizer: torch.optim.SGD, *arguments: Any) -> None:
        group = optimizer.param_groups[0]
        who = "server" if "initial_lr" in group and len(group["params"]) == 2 else "client"
        rates[who].append(float(group["lr"]))
        step(optimizer, *arguments)

    overrides = (
        "model=logistic_regression federation.num_clients=4 federation.num_rounds=3 optimizer.lr=0.1"
        " lr_schedule@client_lr=exponential client_lr.gamma=0.5 lr_schedule@server_lr=step server_lr.step_size=2"
    )
    grid = InProcessGrid(overrides)
    monkeypatch.setattr(optimizer_step, "_sgd_step", noting)
    run_on(grid, tmp_path / "run", overrides)
    assert sorted(set(rates["client"]), reverse=True) == pytest.approx([0.1, 0.05, 0.025])
    assert rates["server"] == pytest.approx([1.0, 1.0, 0.5])


def test_a_scheduler_says_nothing_on_the_terminal(recwarn: pytest.WarningsRecorder) -> None:
    LearningRateSchedule(lambda o: torch.optim.lr_scheduler.StepLR(o, 1)).factor(5)
    assert not recwarn.list
    assert nn.Parameter(torch.zeros(1)).grad is None
