"""Metrics against scikit-learn and by hand, and what they and losses cannot be."""

import dataclasses
import math

import pytest
import torch
from sklearn import metrics as reference
from torch import nn

from fedapp.common.errors import ConfigError
from fedapp.data.source import Examples, Schema
from fedapp.learning.metrics import Metric, choose
from fedapp.learning.task import EVALUATION_BATCH, Task
from fedapp.learning.tasks.classification import Classification
from fedapp.learning.tasks.regression import Regression
from fedapp.server.outcome import federated_metrics
from fedapp.wire.reply import ClientReport

SCORES = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(60) % 3
CLASSES, NUMBERS = Classification(Schema((4,), ("a", "b", "c"))), Regression(Schema((4,)))


def of_classes(*names: str) -> dict[str, Metric]:
    return choose(list(names), "classification", CLASSES.metrics, CLASSES.schema)


def of_numbers(*names: str) -> dict[str, Metric]:
    return choose(list(names), "regression", NUMBERS.metrics, NUMBERS.schema)


def test_classification_metrics() -> None:
    predicted, labels = SCORES.argmax(1).numpy(), LABELS.numpy()
    chances = torch.softmax(SCORES.double(), 1).numpy()
    expected = {
        "accuracy": reference.accuracy_score(labels, predicted),
        "balanced_accuracy": reference.balanced_accuracy_score(labels, predicted),
        "f1_macro": reference.f1_score(labels, predicted, average="macro"),
        "auc": reference.roc_auc_score(labels, chances, multi_class="ovr"),
    }
    found = {name: metric(SCORES, LABELS) for name, metric in of_classes(*expected).items()}
    assert found == pytest.approx(expected, abs=1e-12)


def test_two_classes_are_ranked_by_the_second() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    scores = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.5], [0.0, 3.0]])
    assert of_classes("auc")["auc"](scores, labels) == 0.75
    assert math.isnan(of_classes("auc")["auc"](scores, torch.ones(4, dtype=torch.int64)))


def test_a_class_that_is_absent_leaves_auc_undefined_and_auc_present_of_the_others() -> None:
    two = LABELS < 2
    scores, labels = SCORES[two], LABELS[two]
    chances = torch.softmax(scores.double(), 1).numpy()
    task = dataclasses.replace(CLASSES, metrics=of_classes("auc", "auc_present"))
    assert math.isnan(of_classes("auc")["auc"](scores, labels))
    expected = [reference.roc_auc_score((labels == index).numpy(), chances[:, index]) for index in (0, 1)]
    assert of_classes("auc_present")["auc_present"](scores, labels) == pytest.approx(sum(expected) / 2)
    assert task.undefined("auc", labels) == "no example of class 'c'"
    assert task.undefined("auc", labels[:1]) == "no example of classes 'b', 'c'"
    assert task.undefined("auc_present", labels) == task.undefined("accuracy", labels[:1]) == ""
    assert task.undefined("auc", LABELS) == task.undefined("auc_present", LABELS) == ""
    all_there = of_classes("auc", "auc_present")
    assert all_there["auc"](SCORES, LABELS) == pytest.approx(all_there["auc_present"](SCORES, LABELS))


def test_outputs_that_are_not_finite_have_no_metrics() -> None:
    model = nn.Linear(4, 3)
    nn.init.constant_(model.bias, math.inf)
    task = dataclasses.replace(CLASSES, metrics=of_classes("auc"))
    judged = task.evaluate(model, Examples(torch.randn(60, 4), LABELS))
    assert judged is not None
    assert all(math.isnan(value) for value in judged.metrics.values())


def test_regression_metrics() -> None:
    outputs, targets = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([1.0, 3.0, 3.0])
    assert of_numbers()["mae"](outputs, targets) == pytest.approx(2 / 3)
    assert of_numbers("r2")["r2"](outputs, targets) == pytest.approx(1 - 2 / (8 / 3))


def test_the_metric_that_clients_report_comes_first() -> None:
    assert list(of_classes("auc", "accuracy")) == ["accuracy", "auc"]
    assert list(choose("auto", "regression", NUMBERS.metrics, NUMBERS.schema)) == ["mae"]
    for names in (["accuracy"], ["mae", 3], "mae", ["accurracy"]):
        with pytest.raises(ConfigError, match=r"auto or a list out of mae, .*r2, rmse \(regression\)"):
            choose(names, "regression", NUMBERS.metrics, NUMBERS.schema)


@pytest.mark.parametrize(
    ("metric", "lower", "values"),
    [
        (of_numbers()["mae"], True, {0.0: True, 1e9: True, -1e-9: False, math.nan: False}),
        (of_numbers("r2")["r2"], False, {1.0: True, -1e9: True, 1.1: False, math.nan: False}),
        (of_classes()["accuracy"], False, {0.0: True, 1.0: True, 1.1: False, -0.1: False, math.nan: False}),
        (of_classes("auc")["auc"], False, {0.5: True, 1.1: False, math.nan: False}),
    ],
    ids=lambda value: value.name if isinstance(value, Metric) else None,
)
def test_metrics_know_what_is_better_and_what_cannot_be(metric: Metric, lower: bool, values: dict[float, bool]) -> None:
    assert metric.lower_is_better == lower
    assert {value: metric.possible(value) for value in values} == values


@pytest.mark.parametrize("task", [CLASSES, NUMBERS], ids=lambda task: task.kind)
def test_a_loss_that_cannot_be_does_not_count(task: Task) -> None:
    values = {0.0: True, 1e9: True, math.inf: True, -1e-9: False, math.nan: False}
    for value, counts in values.items():
        said = ClientReport(0, val_examples=5, val_loss=value, val_metrics={})
        assert (federated_metrics([said], task, {0: 5})["val_loss"] == value) == counts


def test_evaluation_in_batches_is_evaluation_at_once() -> None:
    count = EVALUATION_BATCH + 500
    inputs = torch.randn(count, 4, generator=torch.Generator().manual_seed(1))
    examples = Examples(inputs, torch.arange(count) % 3)
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.9))
    task = CLASSES
    judged = task.evaluate(model, examples)
    assert judged is not None
    outputs = model.eval()(inputs).detach()
    assert judged.loss == pytest.approx(float(nn.functional.cross_entropy(outputs, examples.targets)), rel=1e-5)
    assert judged.metrics["accuracy"] == float((outputs.argmax(1) == examples.targets).double().mean())
    assert judged.num_examples == count
    assert task.evaluate(model, examples.take([])) is None
