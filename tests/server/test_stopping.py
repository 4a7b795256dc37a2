"""Stop rules count alike in one process and over several."""

import json

import pytest

from fedapp.common.errors import FederationError
from fedapp.server.stopping import StopRules


def after(rules: StopRules, *losses: float | None, changed: bool = True, seconds: float = 0.0) -> str | None:
    for loss in losses:
        assert rules.reason() is None
        rules.update(changed=changed, accuracy=None, judged=loss, seconds=seconds)
    return rules.reason()


def test_all_rounds() -> None:
    rules = StopRules(3)
    assert after(rules, 1.0, 1.0) is None
    assert after(rules, 1.0) == "all rounds done"


def test_patience_counts_rounds_without_a_better_value() -> None:
    rules = StopRules(100, patience=2)
    assert after(rules, 1.0, 0.9, 0.95, 0.8, 0.81) is None
    assert "patience" in str(after(rules, 0.8))
    assert (rules.progress.best, rules.progress.best_round) == (0.8, 4)


def test_not_a_number_is_never_better() -> None:
    rules = StopRules(100, patience=3)
    assert "patience" in str(after(rules, float("nan"), float("nan"), float("nan")))
    assert rules.progress.best is None


@pytest.mark.parametrize(("lower", "values"), [(True, [1.0, 0.95, 0.91, 0.9]), (False, [0.1, 0.15, 0.19, 0.2])])
def test_less_than_min_delta_is_no_better(lower: bool, values: list[float]) -> None:
    rules = StopRules(100, patience=3, min_delta=0.1, lower_is_better=lower)
    best = [rules.update(changed=True, accuracy=None, judged=value, seconds=0) for value in values]
    assert best == [True, False, False, False]
    assert "the best model is that of round 1" in str(rules.reason())
    assert rules.update(changed=True, accuracy=None, judged=values[0] - 0.2 if lower else 0.3, seconds=0)


def test_validation_splits_judge_the_model_that_a_round_began_with() -> None:
    rules = StopRules(100)
    assert rules.update(changed=True, accuracy=None, judged=1.0, seconds=0, of_before=True)
    assert rules.update(changed=True, accuracy=None, judged=0.5, seconds=0, of_before=True)
    assert rules.progress.best_round == 1


def test_a_metric_that_is_not_known_is_neither_better_nor_worse() -> None:
    rules = StopRules(100, patience=2)
    assert after(rules, None, None, None, 1.0, None, 1.1, None, None) is None
    assert "patience" in str(after(rules, 1.2))
    assert (rules.progress.best, rules.progress.best_round) == (1.0, 4)


def test_patience_on_a_metric_of_which_more_is_better() -> None:
    rules = StopRules(100, patience=2, patience_metric="auc", lower_is_better=False)
    for value in (0.5, 0.7, 0.6):
        rules.update(changed=True, accuracy=None, judged=value, seconds=0)
    assert rules.reason() is None
    rules.update(changed=True, accuracy=None, judged=0.65, seconds=0)
    assert "no better auc" in str(rules.reason())
    assert (rules.progress.best, rules.progress.best_round) == (0.7, 2)


def test_wall_clock_limit() -> None:
    rules = StopRules(100, max_seconds=10)
    assert after(rules, 1.0, seconds=9.9) is None
    assert "federation.max_seconds" in str(after(rules, 1.0, seconds=10.1))


def test_target_and_the_rounds_it_took() -> None:
    rules = StopRules(100, target_accuracy=0.9)
    for accuracy in (0.5, 0.89, None, 0.9):
        assert rules.reason() is None
        rules.update(changed=True, accuracy=accuracy, judged=None, seconds=0)
    assert "target accuracy 0.9" in str(rules.reason())
    assert rules.progress.rounds_to_target == 4


def test_failed_rounds_in_a_row_end_the_run() -> None:
    rules = StopRules(100, max_failed_rounds=2)
    after(rules, 1.0, changed=False)
    after(rules, 1.0)
    after(rules, 1.0, changed=False)
    with pytest.raises(FederationError, match="2 rounds in a row"):
        after(rules, 1.0, changed=False)


def test_a_run_that_never_changed_the_model_has_failed() -> None:
    with pytest.raises(FederationError, match="the model is the initial one"):
        after(StopRules(2, max_failed_rounds=9), 1.0, 1.0, changed=False)


def test_saved_and_loaded_they_go_on_where_they_were() -> None:
    def rules() -> StopRules:
        return StopRules(100, patience=3, target_accuracy=0.9)

    one, two = rules(), rules()
    after(one, 1.0, 0.9, 0.95)
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert two.progress == one.progress
    assert after(two, 0.95) is None
    assert "3 rounds" in str(after(two, 0.95))


def test_a_raised_target_forgets_the_old_one() -> None:
    one = StopRules(100, target_accuracy=0.5)
    one.update(changed=True, accuracy=0.6, judged=None, seconds=0)
    two = StopRules(100, target_accuracy=0.9)
    two.load_state_dict(one.state_dict())
    assert (two.reason(), two.progress.rounds_to_target) == (None, None)
