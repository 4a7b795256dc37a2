"""Losses by closed form, and how one is chosen."""

import json
import math
from pathlib import Path

import pytest
import torch
from in_process import run_in_process
from torch.func import grad, vmap

from fedapp.config import compose
from fedapp.data.source import Schema
from fedapp.learning.build_task import build_task
from fedapp.learning.losses import Loss
from fedapp.learning.losses.classification import CrossEntropy
from fedapp.learning.losses.regression import Huber, SquaredError
from fedapp.learning.task import Task

CLASSES, NUMBER = Schema((4,), ("a", "b", "c")), Schema((4,))
LOGITS, LABELS = torch.tensor([[0.0, math.log(2), 0.0], [math.log(6), 0.0, 0.0]]), torch.tensor([1, 1])
VALUES, TARGETS = torch.tensor([[1.0], [2.0], [7.0]]), torch.tensor([1.0, 2.5, 3.0])


def chosen(schema: Schema, *overrides: str) -> Task:
    return build_task(compose([*overrides]), schema)


def test_cross_entropy() -> None:
    assert CrossEntropy().per_example(LOGITS, LABELS).tolist() == pytest.approx([math.log(2), math.log(8)])
    assert float(CrossEntropy().mean(LOGITS, LABELS)) == pytest.approx(math.log(16) / 2)


def test_smoothed_labels_are_a_mixture_of_the_true_class_and_all() -> None:
    # -log p of the second example is (log 8 - log 6, log 8, log 8) over the classes.
    mixture = 0.7 * math.log(8) + 0.3 * (3 * math.log(8) - math.log(6)) / 3
    assert float(CrossEntropy(label_smoothing=0.3).per_example(LOGITS, LABELS)[1]) == pytest.approx(mixture)
    assert float(CrossEntropy(label_smoothing=0.3).mean(LOGITS[1:], LABELS[1:])) == pytest.approx(mixture)


def test_squared_error() -> None:
    assert SquaredError().per_example(VALUES, TARGETS).tolist() == [0.0, 0.25, 16.0]
    assert float(SquaredError().mean(VALUES, TARGETS)) == pytest.approx(16.25 / 3)


def test_huber_is_a_parabola_that_goes_on_as_a_line() -> None:
    # Below delta d**2 / 2, beyond it delta * (|d| - delta / 2).
    assert Huber(1.0).per_example(VALUES, TARGETS).tolist() == [0.0, 0.125, 3.5]
    assert Huber(2.0).per_example(VALUES, TARGETS).tolist() == [0.0, 0.125, 6.0]
    assert float(Huber(2.0).mean(VALUES, TARGETS)) == pytest.approx(6.125 / 3)


@pytest.mark.parametrize(
    "loss", [CrossEntropy(), CrossEntropy(label_smoothing=0.1), SquaredError(), Huber(0.5)], ids=str
)
def test_the_gradient_of_the_mean_is_the_mean_of_each_examples_gradient(loss: Loss) -> None:
    outputs, targets = (LOGITS, LABELS) if isinstance(loss, CrossEntropy) else (VALUES, TARGETS)
    alone = lambda output, target: loss.per_example(output[None], target[None]).sum()  # noqa: E731
    each = vmap(grad(alone))(outputs, targets)  # of one example's own outputs, as DP-SGD takes them
    whole = grad(lambda values: loss.mean(values, targets))(outputs)
    torch.testing.assert_close(whole, each / len(targets))


def test_auto_takes_the_loss_of_the_kind() -> None:
    assert chosen(CLASSES).criterion == CrossEntropy()
    assert chosen(NUMBER).criterion == SquaredError()


def test_a_loss_is_chosen_with_its_settings() -> None:
    assert chosen(NUMBER, "task/loss=huber", "task.loss.delta=3").criterion == Huber(3.0)
    smoothed = chosen(CLASSES, "task=transfer", "task/loss=cross_entropy", "task.loss.label_smoothing=0.1")
    assert smoothed.criterion == CrossEntropy(label_smoothing=0.1)
    assert list(smoothed.metrics) == ["accuracy", "auc", "balanced_accuracy"]  # those of task=transfer


@pytest.mark.slow
def test_a_run_trains_and_is_judged_by_the_chosen_loss(tmp_path: Path) -> None:
    data = "data=synthetic data.shape=[3] data.num_examples=90 data.test_examples=30 data.num_classes=null"
    rest = "partition=iid model=logistic_regression federation.num_clients=3 federation.num_rounds=1 optimizer.lr=0.001"
    found = {}
    for loss in ("auto", "squared_error", "huber"):
        directory = run_in_process(tmp_path / loss, f"{data} {rest} task/loss={loss}")
        found[loss] = json.loads((directory / "summary.json").read_text())
    assert found["auto"]["model_sha256"] == found["squared_error"]["model_sha256"]
    assert found["auto"]["model_sha256"] != found["huber"]["model_sha256"]
    assert found["huber"]["test_loss"] < 0.51 * found["auto"]["test_loss"]  # half a square at most
