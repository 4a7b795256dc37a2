"""What a client's class frequencies alone explain is not learnt from it (train.logit_adjustment)."""

import json
import math
from pathlib import Path

import pytest
import torch
from every_task import LANGUAGE
from in_process import run_in_process
from torch import nn

from fedapp.common.errors import ConfigError
from fedapp.config import compose
from fedapp.data.source import Examples
from fedapp.learning.build import build_parts, build_training
from fedapp.learning.logit_adjustment import LogitAdjustment
from fedapp.learning.training import LocalTraining
from fedapp.server.check_config import check_config

TABLE = "data=breast_cancer model=logistic_regression"


def test_logits_are_moved_by_the_log_of_the_frequencies() -> None:
    targets = torch.tensor([0, 0, 0, 2])  # with one more each: 4, 1 and 2 of 7
    found = LogitAdjustment(0.5, 3)(targets)
    assert found.tolist() == pytest.approx([0.5 * math.log(count / 7) for count in (4, 1, 2)])


def bias_after(adjustment: LogitAdjustment | None, targets: list[int]) -> float:
    """How far one step moves the first of two classes' logits from the second's, from equal ones."""
    model = nn.Linear(1, 2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    training = LocalTraining(
        loss=nn.functional.cross_entropy,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0),
        local_epochs=1,
        batch_size=len(targets),
        adjustment=adjustment,
    )
    training(model, Examples(torch.zeros(len(targets), 1), torch.tensor(targets)), seed=(0,))
    return float((model.bias[0] - model.bias[1]).detach())


def test_frequencies_alone_move_no_logit() -> None:
    """99 and 199 examples: with those that Laplace's rule adds, the frequencies are a third and two thirds."""
    targets = [0] * 99 + [1] * 199
    assert bias_after(None, targets) == pytest.approx(2 * (99 / 298 - 0.5), abs=1e-6)
    assert bias_after(LogitAdjustment(1.0, 2), targets) == pytest.approx(0.0, abs=3e-3)
    nearly_nothing = bias_after(LogitAdjustment(1.0, 2), [0] * 98)  # where class 1 is never seen
    assert nearly_nothing == pytest.approx(2 / 100, abs=1e-4)


def test_predictions_and_losses_of_evaluation_are_not_moved() -> None:
    config = compose(f"{TABLE} train.logit_adjustment=1 privacy=none".split())
    parts = build_parts(config)
    plain = build_parts(compose(TABLE.split()))
    plain.whole.load_state_dict(parts.whole.state_dict())
    test = parts.source.test()
    assert test is not None
    assert parts.task.evaluate(parts.whole, test) == plain.task.evaluate(plain.whole, test)
    assert build_training(config, parts).adjustment == LogitAdjustment(1.0, 2)
    assert build_training(compose(TABLE.split()), plain).adjustment is None


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (LANGUAGE, "this task is next_token"),
        ("privacy=dp_sgd train.val_fraction=0 federation.final_evaluation=false", "under privacy=dp_sgd"),
        ("federation.personal=head model=mlp data=digits", "out of a head"),
        ("task/loss=cross_entropy task.loss.class_weights=balanced", "the same as task.loss.class_weights=balanced"),
    ],
)
def test_it_is_refused_where_it_has_no_sense(overrides: str, why: str) -> None:
    with pytest.raises(ConfigError, match=rf"train\.logit_adjustment=1: .*{why}"):
        check_config(compose([*overrides.split(), "train.logit_adjustment=1"]))


def test_a_clients_own_model_learns_how_frequent_its_classes_are() -> None:
    from fedapp.client.own_models import OwnModels
    from fedapp.models.personal import OwnModel

    config = compose(f"{TABLE} train.logit_adjustment=1".split())
    training = build_training(config, build_parts(config))
    assert training.adjustment is not None
    assert OwnModels(OwnModel(every_round=False, epochs=2, mu=0.0), training).training.adjustment is None


@pytest.mark.slow
def test_clients_of_two_classes_each_learn_all_ten(tmp_path: Path) -> None:
    """What docs/data.md says, on a smaller run."""
    skewed = "partition=pathological partition.num_classes_per_partition=2 federation.num_rounds=10"
    found = []
    for tau in (0, 1):
        run = run_in_process(tmp_path / str(tau), f"{skewed} train.logit_adjustment={tau}")
        found.append(json.loads((run / "summary.json").read_text())["test_accuracy"])
    assert found[1] > found[0] + 0.1
