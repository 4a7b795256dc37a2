"""Local training against steps done by hand, and its independence of everything but its seed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedapp.common.errors import DeviceError
from fedapp.common.seeding import derive_seed, generator, seeded
from fedapp.config import compose
from fedapp.data.source import Examples, Schema
from fedapp.learning.build import build_parts, build_training
from fedapp.learning.tasks.classification import Classification
from fedapp.learning.tasks.regression import Regression
from fedapp.learning.training import LocalTraining, minibatches

TABLE = Schema(input_shape=(3,), classes=("a", "b"))
REGRESSION = Regression(Schema(input_shape=(1,)))


def line(weight: float) -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, weight)
    return model


def training(**options: object) -> LocalTraining:
    settings: dict[str, object] = {
        "loss": REGRESSION.loss,
        "optimizer": lambda p: torch.optim.SGD(p, lr=0.1),
        "local_epochs": 1,
        "batch_size": 2,
    }
    return LocalTraining(**{**settings, **options})  # type: ignore[arg-type]


def test_one_step_is_the_gradient_step() -> None:
    # loss = mean((w x - y)^2); gradient = mean(2 x (w x - y)) = (2*1*(2-3) + 2*2*(4-1)) / 2 = 5
    examples = Examples(torch.tensor([[1.0], [2.0]]), torch.tensor([3.0, 1.0]))
    model = line(2.0)
    result = training()(model, examples, seed=(0,))
    assert model.weight.item() == pytest.approx(2.0 - 0.1 * 5)
    assert result.steps == 1
    assert result.loss == pytest.approx(((2 - 3) ** 2 + (4 - 1) ** 2) / 2)


def test_proximal_term_pulls_to_where_training_began() -> None:
    # Two steps on x = 1, y = 0: w1 = w0 - lr * 2 w0; then the gradient is 2 w1 + mu (w1 - w0).
    examples = Examples(torch.ones(2, 1), torch.zeros(2))
    model = line(1.0)
    training(local_epochs=2, proximal_mu=3.0)(model, examples, seed=(0,))
    first = 1.0 - 0.1 * 2.0
    assert model.weight.item() == pytest.approx(first - 0.1 * (2 * first + 3.0 * (first - 1.0)))


def test_a_slow_device_stops_after_whole_steps_and_says_how_many() -> None:
    """A clock that moves a second a look: one look at the start, one after each step."""
    examples = Examples(torch.randn(20, 1), torch.randn(20))
    ticks = iter(range(1000))
    slow = training(max_seconds=3.5, clock=lambda: float(next(ticks)), local_epochs=5)
    model, same = line(1.0), line(1.0)
    result = slow(model, examples, seed=(0,))
    assert result.steps == 4
    # Exactly the first four steps of the training that nobody stops.
    first = training(local_epochs=5, max_seconds=3.5, clock=iter([0.0, 0.0, 0.0, 0.0, 9.0]).__next__)
    assert first(same, examples, seed=(0,)).steps == 4
    assert torch.equal(model.weight, same.weight)


def test_at_least_one_step_is_made() -> None:
    examples = Examples(torch.randn(20, 1), torch.randn(20))
    assert training(max_seconds=1e-9)(line(1.0), examples, seed=(0,)).steps == 1


def test_the_rounds_factor_scales_the_learning_rate() -> None:
    examples = Examples(torch.tensor([[1.0], [2.0]]), torch.tensor([3.0, 1.0]))
    model = line(2.0)
    training()(model, examples, seed=(0,), lr_factor=0.5)
    assert model.weight.item() == pytest.approx(2.0 - 0.05 * 5)


@given(st.integers(1, 200), st.integers(1, 40), st.integers(0, 2**31))
def test_an_epoch_shows_every_example_once(count: int, size: int, seed: int) -> None:
    batches = list(minibatches(count, size, generator(seed)))
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(count))
    assert all(len(batch) <= size + 1 for batch in batches)
    if count > 1 and size > 1:
        assert all(len(batch) > 1 for batch in batches)


def test_batch_norm_trains_when_one_example_is_left_over() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    examples = Examples(torch.randn(9, 3), torch.randint(0, 2, (9,)))
    task = Classification(TABLE)
    assert training(loss=task.loss, batch_size=4)(model, examples, seed=(0,)).steps == 2


def test_dropout_and_shuffling_depend_on_the_seed_alone() -> None:
    with seeded(1, "model"):
        start = nn.Sequential(nn.Linear(3, 16), nn.Dropout(0.5), nn.Linear(16, 2)).state_dict()
    examples = Examples(torch.randn(40, 3), torch.randint(0, 2, (40,)))
    task = Classification(TABLE)

    def trained(seed: int) -> torch.Tensor:
        torch.rand(seed + 1)  # moves the global generator
        model = nn.Sequential(nn.Linear(3, 16), nn.Dropout(0.5), nn.Linear(16, 2))
        model.load_state_dict(start)
        training(loss=task.loss, batch_size=8)(model, examples, seed=(seed, "client"))
        return torch.cat([value.flatten() for value in model.state_dict().values()])

    assert torch.equal(trained(5), trained(5))
    assert not torch.equal(trained(5), trained(6))


def test_seeds_are_stable_and_apart() -> None:
    assert derive_seed(0, "shuffle", 1, 2) == 1779626465966582532
    seeds = {derive_seed(0, name, a, b) for name in ("x", "y") for a in range(20) for b in range(20)}
    assert len(seeds) == 800
    assert derive_seed(1, 23) != derive_seed(12, 3)


def test_seeded_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    with seeded(3, "model"):
        inside = torch.rand(2)
    assert torch.equal(torch.get_rng_state(), before)
    with seeded(3, "model"):
        assert torch.equal(torch.rand(2), inside)


def test_bf16_computes_in_fewer_bits_and_keeps_the_parameters_in_all() -> None:
    with seeded(3, "bf16"):
        examples = Examples(torch.randn(40, 3), torch.randint(2, (40,)))
        weights = torch.randn(2, 3)
    task, trained = Classification(TABLE), {}
    for name, precision in {"fp32": "fp32", "bf16": "bf16", "again": "bf16"}.items():
        model = nn.Linear(3, 2)
        model.weight.data, model.bias.data = weights.clone(), torch.zeros(2)
        result = training(loss=task.loss, precision=precision, local_epochs=3)(model, examples, seed=(0,))
        assert result.loss is not None
        trained[name] = model.weight.detach()
    assert trained["bf16"].dtype == torch.float32
    assert torch.equal(trained["bf16"], trained["again"])
    assert not torch.equal(trained["bf16"], trained["fp32"])
    assert torch.allclose(trained["bf16"], trained["fp32"], atol=0.02)


def test_a_machine_that_cannot_compute_in_bfloat16_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch does for an LSTM on processors without instructions for it."""
    parts = build_parts(compose(["data=digits", "model=mlp"]))

    def forward(x: object) -> None:
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("could not create a primitive descriptor\nmore of it")

    monkeypatch.setattr(parts.whole, "forward", forward)
    with pytest.raises(
        DeviceError, match=r"train\.precision=bf16: .*primitive descriptor\); set train\.precision=fp32"
    ):
        build_training(compose(["data=digits", "model=mlp", "train.precision=bf16"]), parts)
    assert build_training(compose(["data=digits", "model=mlp"]), parts).precision == "fp32"
