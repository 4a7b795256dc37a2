"""Losses and metrics against scikit-learn and by hand."""

import math

import pytest
import torch
from sklearn import metrics as reference
from torch import nn

from fedapp.common.errors import ConfigError
from fedapp.data.source import Examples, Schema
from fedapp.learning.metrics import CLASSIFICATION, REGRESSION, choose
from fedapp.learning.task import EVALUATION_BATCH, Task

SCORES = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(60) % 3


def test_classification_metrics() -> None:
    predicted, labels = SCORES.argmax(1).numpy(), LABELS.numpy()
    chances = torch.softmax(SCORES.double(), 1).numpy()
    expected = {
        "accuracy": reference.accuracy_score(labels, predicted),
        "balanced_accuracy": reference.balanced_accuracy_score(labels, predicted),
        "f1_macro": reference.f1_score(labels, predicted, average="macro"),
        "auc": reference.roc_auc_score(labels, chances, multi_class="ovr"),
    }
    found = {name: metric(SCORES, LABELS) for name, metric in CLASSIFICATION.items()}
    assert found == pytest.approx(expected, abs=1e-12)


def test_two_classes_are_ranked_by_the_second() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    scores = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.5], [0.0, 3.0]])
    assert CLASSIFICATION["auc"](scores, labels) == 0.75
    assert math.isnan(CLASSIFICATION["auc"](scores, torch.ones(4, dtype=torch.int64)))


def test_regression_metrics() -> None:
    outputs, targets = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([1.0, 3.0, 3.0])
    assert REGRESSION["mae"](outputs, targets) == pytest.approx(2 / 3)
    assert REGRESSION["r2"](outputs, targets) == pytest.approx(1 - 2 / (8 / 3))


def test_the_metric_that_clients_report_comes_first() -> None:
    assert list(choose(["auc"], classification=True)) == ["accuracy", "auc"]
    assert list(choose("auto", classification=False)) == ["mae"]
    with pytest.raises(ConfigError, match="auto or a list out of mae, r2"):
        choose(["accuracy"], classification=False)


def test_evaluation_in_batches_is_evaluation_at_once() -> None:
    count = EVALUATION_BATCH + 500
    inputs = torch.randn(count, 4, generator=torch.Generator().manual_seed(1))
    examples = Examples(inputs, torch.arange(count) % 3)
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.9))
    task = Task(Schema(input_shape=(4,), classes=("a", "b", "c")), choose("auto", classification=True))
    judged = task.evaluate(model, examples)
    assert judged is not None
    outputs = model.eval()(inputs).detach()
    assert judged.loss == pytest.approx(float(nn.functional.cross_entropy(outputs, examples.targets)), rel=1e-5)
    assert judged.metrics["accuracy"] == float((outputs.argmax(1) == examples.targets).double().mean())
    assert judged.num_examples == count
    assert task.evaluate(model, examples.take([])) is None
