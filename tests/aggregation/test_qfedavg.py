"""q-FedAvg against its formula worked by hand, against FedAvg, and what it cannot be combined with."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from in_process import run_in_process

from fedapp.aggregation.exact_sum import WeightedSum
from fedapp.aggregation.qfedavg import QFedAvg
from fedapp.aggregation.rules import Median
from fedapp.common.errors import ConfigError
from fedapp.config import compose
from fedapp.learning.build import build_parts
from fedapp.models.weights import read_weights
from fedapp.server.check_config import check_config
from fedapp.updates.step import UpdateRejected
from fedapp.updates.steps import UpdateSteps, steps_of

SMALL = "data=breast_cancer data.scaling=published model=mlp model.hidden=[4] partition=iid federation.num_clients=4"
SMALL += " federation.num_rounds=2"
TEMPLATE = {"w": torch.zeros(2)}


def sent(step: QFedAvg, update: list[float], loss: float, reference: float = 1.0) -> dict[str, torch.Tensor]:
    """One client's, in a round with the learning rate as it is."""
    steps = UpdateSteps((step,)).judged(loss, 1.0)
    return steps.on_client({"w": torch.tensor(update)}, TEMPLATE, 0.5, {"QFedAvg": {"reference": reference}}, {})


def moved(step: QFedAvg, clients: list[tuple[list[float], float, float]], reference: float = 1.0) -> torch.Tensor:
    """By how much the model moves after clients with (update, loss, weight): exact sum, step, division by the weight,
    as the strategy has them."""
    steps = UpdateSteps((step,))
    total = WeightedSum(steps.template(TEMPLATE))
    for update, loss, weight in clients:
        total.add(sent(step, update, loss, reference), weight)
    found = steps.on_total(total.sum(), total.weight, (), {}, 0.0)
    assert found.keys() == TEMPLATE.keys()
    return found["w"] / total.weight


def test_a_step_is_that_of_the_paper() -> None:
    """q = 1, L = 10: F = 2 with u = (0.1, 0), and F = 0.5 with u = (0, 0.2); both weigh one half.

    Numerator: (2 (0.1, 0) + 0.5 (0, 0.2)) / 2 = (0.1, 0.05).
    Divisor: (2 + 1 * 10 * 1 * 0.01 + 0.5 + 1 * 10 * 1 * 0.04) / 2 = (2.1 + 0.9) / 2 = 1.5.
    """
    found = moved(QFedAvg(q=1.0, lipschitz=10.0), [([0.1, 0.0], 2.0, 0.5), ([0.0, 0.2], 0.5, 0.5)])
    assert found.tolist() == pytest.approx([0.1 / 1.5, 0.05 / 1.5], rel=1e-6)


def test_another_power() -> None:
    """q = 2, L = 5, one client with F = 3 and u = (0.2, 0): 9 u / (9 + 2 * 5 * 3 * 0.04) = 1.8 / 10.2."""
    found = moved(QFedAvg(q=2.0, lipschitz=5.0), [([0.2, 0.0], 3.0, 1.0)])
    assert found[0].item() == pytest.approx(1.8 / 10.2, rel=1e-6)


@pytest.mark.parametrize("reference", [0.01, 0.7, 40.0])
def test_the_reference_cancels(reference: float) -> None:
    clients = [([0.1, -0.3], 2.0, 0.25), ([0.4, 0.2], 0.5, 0.5), ([0.0, 0.1], 1.0, 0.25)]
    plain = moved(QFedAvg(q=1.5, lipschitz=10.0), clients)
    assert torch.allclose(moved(QFedAvg(q=1.5, lipschitz=10.0), clients, reference), plain, rtol=1e-5)


def test_the_reference_follows_the_mean_loss_and_is_kept() -> None:
    step = QFedAvg(q=1.0, lipschitz=10.0)
    assert step.plan(1) == {"reference": 1.0}
    moved(step, [([0.1, 0.0], 2.0, 0.5), ([0.0, 0.2], 0.5, 0.25)])
    assert step.plan(2)["reference"] == pytest.approx((2.0 * 0.5 + 0.5 * 0.25) / 0.75)
    resumed = QFedAvg(q=1.0, lipschitz=10.0)
    resumed.load_state_dict(json.loads(json.dumps(step.state_dict())))
    assert resumed.plan(2) == step.plan(2)


def test_larger_losses_count_for_more_the_larger_q_is() -> None:
    def share(q: float) -> float:
        found = moved(QFedAvg(q=q, lipschitz=1e-9), [([1.0, 0.0], 2.0, 0.5), ([0.0, 1.0], 1.0, 0.5)])
        return float(found[0] / found.sum())

    assert [share(q) for q in (0.0, 1.0, 2.0)] == pytest.approx([1 / 2, 2 / 3, 4 / 5], rel=1e-5)


def test_a_perfect_model_does_not_divide_by_zero() -> None:
    found = moved(QFedAvg(q=0.5, lipschitz=10.0), [([0.0, 0.0], 0.0, 0.5), ([0.1, 0.0], 1.0, 0.5)])
    assert bool(found.isfinite().all())


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_not_sent(loss: float) -> None:
    with pytest.raises(UpdateRejected, match="loss on this client's training examples is not finite"):
        sent(QFedAvg(q=1.0, lipschitz=1.0), [0.1, 0.1], loss)


@pytest.mark.parametrize("values", [(0.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (math.nan, 1.0), (math.inf, 1.0)])
def test_impossible_values_are_rejected(values: tuple[float, float]) -> None:
    with pytest.raises(UpdateRejected, match="impossible values of q-FedAvg"):
        QFedAvg(q=1.0, lipschitz=1.0).on_reply(torch.tensor([0.1, 0.1, *values]), 1.0, {})


def test_the_lipschitz_constant_follows_the_learning_rate() -> None:
    config = compose(f"{SMALL} strategy=qfedavg optimizer.lr=0.05".split())
    (step,) = steps_of(config).steps
    assert isinstance(step, QFedAvg)
    assert step.lipschitz == pytest.approx(20.0)
    halved = step.judged(1.0, 0.5).on_client(torch.tensor([0.1, 0.0, 0.0, 0.0]), 1.0, {"reference": 1.0}, {})
    assert halved[2].item() == pytest.approx(1 + 20.0 / 0.5 * 0.01)


@pytest.mark.slow
def test_a_power_of_zero_is_fedavg(tmp_path: Path) -> None:
    fair = run_in_process(tmp_path / "q", f"{SMALL} strategy=qfedavg strategy.fairness.q=0.0")
    plain = run_in_process(tmp_path / "plain", SMALL)
    other = run_in_process(tmp_path / "other", f"{SMALL} strategy=qfedavg strategy.fairness.q=2.0")
    one, two, three = (read_weights(path / "model.safetensors", key="test") for path in (fair, plain, other))
    assert all(torch.allclose(one[name], two[name], rtol=1e-5, atol=1e-6) for name in two)
    assert not all(torch.allclose(three[name], two[name], rtol=1e-3, atol=1e-4) for name in two)
    lines = [json.loads(line) for line in (other / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["reference_loss"] > 0


@pytest.mark.slow
def test_supernodes_add_up_to_the_same_model(tmp_path: Path) -> None:
    runs = [run_in_process(tmp_path / str(n), f"{SMALL} strategy=qfedavg", num_nodes=n) for n in (1, 3)]
    assert len({json.loads((run / "summary.json").read_text())["model_sha256"] for run in runs}) == 1


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("privacy=dp_sgd privacy.target_epsilon=3", "no loss may leave a client"),
        ("privacy=client_dp", "no loss may leave a client|client_dp"),
        ("secure_aggregation=secaggplus", "a client's share of the divisor has no public bound"),
        ("secure_aggregation=helper", "a client's share of the divisor has no public bound"),
        ("secure_aggregation=bfv", "a client's share of the divisor has no public bound"),
        ("strategy.max_update_norm=1.0", "strategy.max_update_norm=1.0: .* would say nothing"),
        ("strategy.fairness.q=-1.0", "strategy.fairness.q=-1.0: must be at least 0"),
        ("strategy.fairness.lipschitz=0", "strategy.fairness.lipschitz=0: must be greater than 0"),
    ],
)
def test_what_it_cannot_be_combined_with(overrides: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_config(compose(f"{SMALL} strategy=qfedavg {overrides}".split()))


def test_moving_statistics_are_refused() -> None:
    config = compose(f"{SMALL} strategy=qfedavg".split())
    parts = build_parts(config)
    (step,) = steps_of(config).steps
    step.conflicts(config, parts)
    moving = replace(parts, model=torch.nn.Sequential(parts.model, torch.nn.BatchNorm1d(2)))
    with pytest.raises(ConfigError, match=r"1.running_mean moves without a gradient; choose a model with model.norm"):
        step.conflicts(config, moving)


def test_a_robust_rule_gives_no_sum() -> None:
    assert Median({}).each
    config = compose(f"{SMALL} strategy=median".split())
    config.strategy.fairness = {"_target_": "fedapp.aggregation.qfedavg.QFedAvg", "q": 1.0}
    with pytest.raises(ConfigError, match=r"strategy.fairness: needs the sum of all updates"):
        check_config(config)
