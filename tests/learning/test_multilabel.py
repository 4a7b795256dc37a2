"""Several labels at once: loss, weights and metrics by hand and against scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from torch.func import grad, vmap

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.source import Examples, Schema
from fedapp.learning.agreement import of_targets, share_columns
from fedapp.learning.losses.multilabel import BinaryCrossEntropy
from fedapp.learning.metrics import choose
from fedapp.learning.metrics.metric import Metric
from fedapp.learning.tasks.by_schema import by_schema
from fedapp.learning.tasks.multilabel import MultiLabel

SCHEMA = Schema((2,), labels=("fever", "cough", "rash"))
RANDOM = torch.Generator().manual_seed(3)
LOGITS = torch.randn(40, 3, generator=RANDOM)
TARGETS = (torch.rand(40, 3, generator=RANDOM) < torch.tensor([0.5, 0.3, 0.1])).float()


def metric(name: str, **settings: object) -> Metric:
    return choose([{name: settings}], "multilabel", {}, SCHEMA)[name]


def test_the_loss_of_an_example_is_the_mean_over_its_labels_and_works_one_by_one() -> None:
    loss = BinaryCrossEntropy()
    chance = LOGITS.sigmoid()
    by_hand = -(TARGETS * chance.log() + (1 - TARGETS) * (1 - chance).log()).mean(1)
    assert torch.allclose(loss.per_example(LOGITS, TARGETS), by_hand, atol=1e-6)
    weighted = BinaryCrossEntropy(class_weights={"fever": 1, "cough": 2, "rash": 9}).of(SCHEMA)
    times = torch.where(TARGETS > 0, torch.tensor([1.0, 2.0, 9.0]), 1.0)
    expected = -(times * (TARGETS * chance.log() + (1 - TARGETS) * (1 - chance).log())).mean(1)
    assert torch.allclose(weighted.per_example(LOGITS, TARGETS), expected, atol=1e-6)
    each = vmap(grad(lambda one, target: weighted.per_example(one[None], target[None]).sum()))(LOGITS, TARGETS)
    whole = grad(lambda values: weighted.mean(values, TARGETS))(LOGITS)
    torch.testing.assert_close(whole, each / len(TARGETS))


def test_balanced_weights_count_having_a_label_and_not_having_it_alike() -> None:
    loss = BinaryCrossEntropy(class_weights="balanced").of(SCHEMA)
    assert loss.weights is not None
    targets = torch.cat([TARGETS[:, :2], torch.zeros(40, 1)], 1)
    values = loss.weights.values(targets)
    loss.weights.set_statistics(values.mean(0), values.std(0))
    weights = loss.weights.of(targets)
    for at in (0, 1):
        having, without = (weights[targets[:, at] == value, at].sum() for value in (1, 0))
        assert having == pytest.approx(float(without))
        assert float(weights[:, at].mean()) == pytest.approx(1)
    assert weights[:, 2].tolist() == [1.0] * 40  # nobody has it
    agreed = [of_targets(loss.weights)]
    assert share_columns(agreed) == (slice(0, 2), slice(2, 4), slice(4, 6))
    assert "by label" in agreed[0].what


@pytest.mark.parametrize("given", [{"fever": 1}, {"fever": 1, "cough": 1, "rash": 0}, {"a": 1, "b": 1, "c": 1}])
def test_weights_that_are_none_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"task\.loss\.class_weights=.*fever, cough, rash; or balanced"):
        BinaryCrossEntropy(class_weights=given).of(SCHEMA)


def test_metrics_are_those_of_scikit_learn() -> None:
    true, found, scores = TARGETS.numpy(), (LOGITS >= 0).int().numpy(), LOGITS.numpy()
    expected = {
        "label_auc": reference.roc_auc_score(true, scores),
        "label_average_precision": reference.average_precision_score(true, scores),
        "label_f1_macro": reference.f1_score(true, found, average="macro"),
        "label_f1_micro": reference.f1_score(true, found, average="micro"),
        "subset_accuracy": reference.accuracy_score(true, found),
        "hamming_loss": reference.hamming_loss(true, found),
    }
    for name, value in expected.items():
        assert metric(name)(LOGITS, TARGETS) == pytest.approx(value), name
    assert metric("label_auc", label="rash")(LOGITS, TARGETS) == pytest.approx(
        reference.roc_auc_score(true[:, 2], scores[:, 2])
    )


def test_a_label_that_no_example_has_makes_the_mean_undefined_unless_it_is_left_out() -> None:
    targets = TARGETS.clone()
    targets[:, 2] = 0
    for name in ("label_auc", "label_average_precision"):
        assert math.isnan(metric(name)(LOGITS, targets))
        assert metric(name, absent="left_out")(LOGITS, targets) == pytest.approx(
            np.mean([metric(name, label=label)(LOGITS, targets) for label in ("fever", "cough")])
        )
    task = MultiLabel(SCHEMA, metrics={"label_auc": metric("label_auc")})
    assert task.undefined("label_auc", targets) == "no example with, or none without, 'rash'"
    assert task.undefined("label_auc", TARGETS) == ""
    assert math.isnan(metric("label_f1_micro")(-LOGITS.abs(), torch.zeros_like(TARGETS)))


def test_metrics_and_losses_of_other_kinds_are_refused_with_those_that_serve() -> None:
    with pytest.raises(ConfigError, match=r"task\.metrics=\['auc'\].*hamming_loss.*label_auc.*\(multilabel\)"):
        choose(["auc"], "multilabel", {}, SCHEMA)
    with pytest.raises(ConfigError, match=r"label_auc\.label=itch: no such label; known: fever, cough, rash"):
        metric("label_auc", label="itch")
    with pytest.raises(ConfigError, match=r"task\.kind=multilabel: an example of this data has one label"):
        MultiLabel(Schema((2,), ("a", "b")))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.zeros(2), r"shape \(2,\), \(examples, 3\) is needed"),
        (torch.zeros(2, 4), r"shape \(2, 4\)"),
        (torch.zeros(2, 3).long(), "must be float32"),
        (torch.full((2, 3), 0.5), "neither 0 nor 1"),
        (torch.full((2, 3), math.nan), "neither 0 nor 1"),
    ],
)
def test_targets_that_are_none_are_refused(targets: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=f"^x: .*{message}"):
        by_schema(SCHEMA).check(Examples(torch.zeros(2, 2), targets), "x")


def test_predictions_name_the_labels_of_half_and_more() -> None:
    task = by_schema(SCHEMA)
    rows = task.predictions(torch.tensor([[2.0, -1.0, 0.0], [-1.0, -1.0, -1.0]])).tolist()
    assert task.columns == ("prediction", *(f"probability of {label}" for label in SCHEMA.labels))
    assert [task.row(row)[0] for row in rows] == ["fever;rash", ""]
    assert [task.line(row) for row in rows] == [["fever;rash", "0.8808;0.5000"], ["-", "-"]]
