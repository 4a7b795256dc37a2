"""What a sweeper is told: the objective, its direction, and which trials have failed."""

import pytest

from fedapp.common.errors import ConfigError
from fedapp.config import compose
from fedapp.launch.objective import is_sweep, objective_of, sweeper_direction
from fedapp.server.objective_figure import direction_of

OPTUNA = ["hydra/sweeper=optuna", "optimizer.lr=interval(0.01,1)"]


@pytest.mark.parametrize(
    ("objective", "direction"),
    [
        ("test_accuracy", "maximize"),
        ("test_loss", "minimize"),
        ("final_val_accuracy_worst_decile", "maximize"),
        ("test_rmse", "minimize"),
        ("final_val_loss", "minimize"),
        ("bytes_up", "minimize"),
    ],
)
def test_the_direction_is_the_metrics(objective: str, direction: str) -> None:
    assert direction_of(compose([f"run.objective={objective}"])) == direction
    assert sweeper_direction(OPTUNA, [f"run.objective={objective}"]) == [f"hydra.sweeper.direction={direction}"]


def test_an_unknown_figure_needs_a_direction() -> None:
    with pytest.raises(ConfigError, match=r"run.objective=clients: .* set run.direction=minimize"):
        direction_of(compose(["run.objective=clients"]))
    assert direction_of(compose(["run.objective=clients", "run.direction=maximize"])) == "maximize"


def test_a_sweeper_without_or_against_the_objective_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs to know what to optimise"):
        sweeper_direction(OPTUNA, [])
    against = [*OPTUNA, "hydra.sweeper.direction=minimize"]
    with pytest.raises(ConfigError, match=r"run.objective=test_accuracy is to maximize"):
        sweeper_direction(against, ["run.objective=test_accuracy"])
    assert sweeper_direction(["optimizer.lr=0.1,0.2"], []) == []  # Hydra's own sweeper


def test_a_summary_without_the_figure_is_no_result() -> None:
    assert objective_of("test_accuracy", {"test_accuracy": 0.5}) == 0.5
    assert objective_of(None, {}) is None
    for summary in ({"test_loss": 0.1}, {"test_accuracy": None}, {"test_accuracy": float("nan")}):
        with pytest.raises(ConfigError, match=r"run.objective=test_accuracy: in summary.json"):
            objective_of("test_accuracy", summary)


def test_a_sweep_is_told_from_a_value() -> None:
    assert [is_sweep(one) for one in ("a=1,2", "a=interval(0,1)", "a=1", "a=[1,2]")] == [True, True, False, False]
