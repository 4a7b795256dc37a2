"""The server's optimizers by hand, and their state through a checkpoint."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedapp.config import compose
from fedapp.learning.build import optimizer_factory
from fedapp.server.run_directory.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from fedapp.server.server_optimizer import ServerOptimizer

pytestmark = pytest.mark.slow  # whole federations

STRATEGIES = ("fedavg", "fedavgm", "fedadam", "fedadagrad", "fedyogi")
STATE = {"w": torch.tensor([1.0, -2.0]), "b": torch.tensor(0.5), "count": torch.tensor(3)}
MEANS = [
    {"w": torch.tensor([0.5, -1.0], dtype=torch.float64), "b": torch.tensor(0.25, dtype=torch.float64)},
    {"w": torch.tensor([-0.1, 2.0], dtype=torch.float64), "b": torch.tensor(0.0, dtype=torch.float64)},
    {"w": torch.tensor([0.3, 0.3], dtype=torch.float64), "b": torch.tensor(-1.0, dtype=torch.float64)},
]


def make(strategy: str) -> ServerOptimizer:
    node = compose([f"strategy={strategy}"]).strategy.server_optimizer
    return ServerOptimizer(["w", "b"], optimizer_factory("strategy.server_optimizer", node))


def steps(optimizer: ServerOptimizer, state: dict[str, Tensor], means: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    for mean in means:
        state = optimizer.step(state, mean)
    return state


def test_yogi_by_hand() -> None:
    """Reddi et al. 2021, algorithm 2, with Adam's bias correction, which the implementation adds."""
    lr, beta1, beta2, tau = 0.01, 0.9, 0.99, 0.001
    w, m, v = STATE["w"].double(), torch.full((2,), 1e-6).double(), torch.full((2,), 1e-6).double()
    for t, mean in enumerate(MEANS, start=1):
        delta = -mean["w"]  # the gradient: the optimizer descends
        m = beta1 * m + (1 - beta1) * delta
        v = v - (1 - beta2) * delta**2 * torch.sign(v - delta**2)
        w = w - lr / (1 - beta1**t) * m / ((v / (1 - beta2**t)).sqrt() + tau)
    assert torch.allclose(steps(make("fedyogi"), STATE, MEANS)["w"].double(), w, rtol=0, atol=1e-6)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_saved_and_loaded_it_goes_on_where_it_was(strategy: str, tmp_path: Path) -> None:
    whole = steps(make(strategy), STATE, MEANS)
    first = make(strategy)
    middle = steps(first, STATE, MEANS[:2])
    path = save_checkpoint(tmp_path, Checkpoint(2, middle, first.state_dict(), {"a": [1]}, {"b": None}))
    saved = load_checkpoint(path)
    second = make(strategy)
    second.load_state_dict(dict(saved.optimizer), saved.model)
    end = second.step(saved.model, MEANS[2])
    assert all(torch.equal(end[key], whole[key]) for key in STATE)
    assert end["count"].dtype == torch.int64
    assert (saved.server_round, saved.values, saved.config) == (2, {"a": [1]}, {"b": None})


def test_nothing_is_saved_before_the_first_step(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, Checkpoint(0, STATE, make("fedadam").state_dict(), {}, {}))
    saved = load_checkpoint(path)
    fresh = make("fedadam")
    fresh.load_state_dict(dict(saved.optimizer), saved.model)
    assert torch.equal(fresh.step(saved.model, MEANS[0])["w"], make("fedadam").step(STATE, MEANS[0])["w"])


def test_what_a_codec_makes_of_no_change_moves_no_constant_and_no_variance_below_0() -> None:
    names = ("input.offset", "norm.running_mean", "norm.running_var")
    state = {name: torch.tensor([1.0, 0.25]) for name in (*names, "w")}
    rounded = {name: torch.tensor([-0.125, -0.5], dtype=torch.float64) for name in state}
    optimizer = ServerOptimizer(["w"], lambda parameters: torch.optim.SGD(parameters, lr=1.0), ["input.offset"])
    found = optimizer.step(state, rounded)
    assert found["input.offset"].tolist() == [1.0, 0.25]
    assert found["norm.running_mean"].tolist() == [0.875, -0.25]
    assert found["norm.running_var"].tolist() == [0.875, 0.25]
