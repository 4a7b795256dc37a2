"""Every metric that people report, against scikit-learn or by hand, and its settings."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from torch import nn

from fedapp.common.errors import ConfigError
from fedapp.data.source import Examples, Schema
from fedapp.learning.metrics import choose
from fedapp.learning.tasks.classification import Classification

TWO, THREE, NUMBER = Schema((4,), ("well", "ill")), Schema((4,), ("a", "b", "c")), Schema((4,))
RANDOM = torch.Generator().manual_seed(3)
SCORES, LABELS = torch.randn(80, 2, generator=RANDOM), (torch.rand(80, generator=RANDOM) < 0.25).long()
SCORES3, LABELS3 = torch.randn(90, 3, generator=RANDOM), torch.randint(3, (90,), generator=RANDOM)
SAID, TRUE = SCORES.argmax(1).numpy(), LABELS.numpy()
CHANCE = torch.softmax(SCORES.double(), 1).numpy()


def value(name: str, outputs: torch.Tensor, targets: torch.Tensor, schema: Schema, **own: Any) -> float:
    kind = "classification" if schema.classes else "regression"
    return choose([{name: own}], kind, {}, schema)[name](outputs, targets)


def test_of_two_classes_the_second_is_meant() -> None:
    expected = {
        "precision": reference.precision_score(TRUE, SAID),
        "recall": reference.recall_score(TRUE, SAID),
        "sensitivity": reference.recall_score(TRUE, SAID),
        "specificity": reference.recall_score(TRUE, SAID, pos_label=0),
        "f1": reference.f1_score(TRUE, SAID),
        "mcc": reference.matthews_corrcoef(TRUE, SAID),
        "average_precision": reference.average_precision_score(TRUE, CHANCE[:, 1]),
        "brier": reference.brier_score_loss(TRUE, CHANCE[:, 1]),
    }
    found = {name: value(name, SCORES, LABELS, TWO) for name in expected}
    assert found == pytest.approx(expected, abs=1e-12)
    assert len(set(expected.values())) == len(expected) - 1


def test_or_the_class_that_is_named() -> None:
    assert value("recall", SCORES, LABELS, TWO, positive="well") == value("specificity", SCORES, LABELS, TWO)
    found = value("average_precision", SCORES3, LABELS3, THREE, positive="c")
    chance = torch.softmax(SCORES3.double(), 1)[:, 2]
    assert found == pytest.approx(reference.average_precision_score((LABELS3 == 2).numpy(), chance.numpy()))


def test_of_several_classes_the_mean_is_taken() -> None:
    said, true = SCORES3.argmax(1).numpy(), LABELS3.numpy()
    expected = {
        "precision": reference.precision_score(true, said, average="macro"),
        "recall": reference.recall_score(true, said, average="macro"),
        "f1": reference.f1_score(true, said, average="macro"),
        "mcc": reference.matthews_corrcoef(true, said),
        "top_k": reference.top_k_accuracy_score(true, SCORES3.numpy(), k=2),
        "brier": reference.brier_score_loss(true, torch.softmax(SCORES3.double(), 1).numpy(), labels=[0, 1, 2]),
    }
    settings = {"top_k": {"k": 2}}
    found = {name: value(name, SCORES3, LABELS3, THREE, **settings.get(name, {})) for name in expected}
    assert found == pytest.approx(expected, abs=1e-12)
    assert value("top_k", SCORES3, LABELS3, THREE) == 1.0


def test_recall_at_a_fixed_precision_and_alarm_rate() -> None:
    chance = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05])
    scores, labels = torch.stack([1 - chance, chance], 1).log(), torch.tensor([1, 1, 0, 1, 0, 0, 0, 0, 1, 0])
    for precision, found in ((1.0, 0.5), (0.75, 0.75), (0.4, 1.0)):
        assert value("recall_at_precision", scores, labels, TWO, precision=precision) == found
    for rate, found in ((0.1, 0.25), (0.2, 0.5), (0.39, 0.5), (0.4, 0.75), (1.0, 1.0), (0.001, 0.25)):
        assert value("recall_at_alarm_rate", scores, labels, TWO, alarm_rate=rate) == found


def test_calibration_error_by_hand() -> None:
    chance = torch.tensor([0.6, 0.6, 0.6, 0.6, 0.9, 0.9])
    scores, labels = torch.stack([chance, 1 - chance], 1).log(), torch.tensor([0, 1, 1, 1, 0, 0])
    assert value("calibration_error", scores, labels, TWO) == pytest.approx((4 * 0.35 + 2 * 0.1) / 6)


def test_regression_metrics_against_scikit_learn() -> None:
    outputs, targets = torch.randn(50, 1, generator=RANDOM), torch.randn(50, generator=RANDOM) + 5
    said, true = outputs.squeeze(1).double().numpy(), targets.double().numpy()
    expected = {
        "mse": reference.mean_squared_error(true, said),
        "rmse": reference.root_mean_squared_error(true, said),
        "mape": reference.mean_absolute_percentage_error(true, said),
        "median_absolute_error": reference.median_absolute_error(true, said),
        "mase": np.abs(true - said).mean() / np.abs(true[1:] - true[:-1]).mean(),
    }
    found = {name: value(name, outputs, targets, NUMBER) for name in expected}
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["recall", "average_precision", "recall_at_precision", "recall_at_alarm_rate"])
def test_a_class_that_is_not_there_is_not_found_or_missed(name: str) -> None:
    assert math.isnan(value(name, SCORES, torch.zeros(80, dtype=torch.int64), TWO))
    assert not math.isnan(value(name, SCORES3, torch.zeros(90, dtype=torch.int64), THREE))  # of those that are


@pytest.mark.parametrize(
    ("name", "targets"), [("mape", [0.0, 1.0]), ("mase", [1.0]), ("mase", [2.0, 2.0, 2.0]), ("r2", [1.0])]
)
def test_errors_that_have_no_scale_are_not_defined(name: str, targets: list[float]) -> None:
    assert math.isnan(value(name, torch.ones(len(targets), 1), torch.tensor(targets), NUMBER))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([{"recall": {"positive": "dead"}}], r"recall.positive=dead: no such class; known: well, ill"),
        ([{"top_k": {"n": 3}}], r"top_k has no setting 'n'; it has k"),
        ([{"mcc": {"n": 3}}], r"mcc has no setting 'n'; it has none"),
        ([{"top_k": {"k": 0}}], r"metric.top_k.k=0: must be at least 1"),
        ([{"top_k": 3}], r"top_k has no setting 3"),
        ([{"recall_at_precision": {"precision": 1.5}}], r"precision=1.5: must be at most 1"),
        ([{"recall": {"_target_": "os.system"}}], r"recall has no setting '_target_'"),
        (["recal"], r"must be auto or a list out of accuracy, auc"),
        ([["recall"]], r"must be auto or a list"),
    ],
)
def test_settings_that_cannot_be_are_named(names: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose(names, "classification", {}, TWO)


def test_the_confusion_matrix_counts_true_classes_by_predicted_ones() -> None:
    model = nn.Linear(4, 3)
    examples = Examples(torch.randn(90, 4, generator=RANDOM), LABELS3)
    found = Classification(THREE).details(model, examples)
    said = model(examples.inputs).argmax(1).numpy()
    assert found["confusion_matrix"] == reference.confusion_matrix(LABELS3.numpy(), said, labels=[0, 1, 2]).tolist()
    assert found["classes"] == ["a", "b", "c"]
