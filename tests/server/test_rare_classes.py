"""A class of few examples: weights that clients agree on, given ones, and the focal loss."""

from pathlib import Path

import pytest
import torch
from in_process import run_in_process
from safetensors.torch import load_file
from secure_runs import summary
from torch.func import grad, vmap

from fedapp.common.errors import ConfigError
from fedapp.config import compose
from fedapp.data.source import Schema
from fedapp.learning.losses.classification import CrossEntropy, Focal
from fedapp.server.check_config import check_config

CLASSES = Schema((2,), ("well", "ill"))
LOGITS, LABELS = torch.tensor([[0.3, -1.0], [2.0, 0.5], [-1.0, 0.2]]), torch.tensor([0, 1, 1])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 % are ill, and so alike the others that a fit of all examples alike finds few of them."""
    random = torch.Generator().manual_seed(1)
    ill = torch.arange(1500) % 25 == 0
    rows = torch.randn(1500, 3, generator=random) + 1.3 * ill[:, None]
    path = tmp_path_factory.mktemp("data") / "t.csv"
    cells = ("".join(f"{value:.5g}," for value in row) for row in rows.tolist())
    path.write_text(
        "a,b,c,state\n" + "".join(f"{c}{'ill' if i else 'well'}\n" for c, i in zip(cells, ill, strict=True))
    )
    return path


def run_on_table(table: Path, directory: Path, more: str) -> Path:
    return run_in_process(
        directory,
        f"data=csv data.path={table} data.label=state data.classes=[well,ill] model=logistic_regression partition=iid"
        " federation.num_clients=5 federation.fraction_train=1 federation.num_rounds=15 train.local_epochs=2"
        f" task.metrics=[recall,specificity] {more}",
    )


@pytest.mark.slow
def test_balanced_weights_find_them(table: Path, tmp_path: Path) -> None:
    plain = run_on_table(table, tmp_path / "plain", "")
    balanced = run_on_table(table, tmp_path / "b", "task/loss=cross_entropy task.loss.class_weights=balanced")
    assert summary(plain)["test_recall"] < 0.5
    assert summary(balanced)["test_recall"] > 0.7
    assert summary(balanced)["test_specificity"] > 0.8
    weights = load_file(balanced / "model.safetensors")["output.weights"]
    assert weights[1] / weights[0] == pytest.approx(24, rel=0.35)  # of training examples, here fewer than 1500
    assert "output.weights" not in load_file(plain / "model.safetensors")


@pytest.mark.slow
def test_given_weights_find_them_too_under_secure_aggregation(table: Path, tmp_path: Path) -> None:
    secure = "secure_aggregation=secaggplus federation.final_evaluation=false data.scaling=none task/loss=cross_entropy"
    with pytest.raises(ConfigError, match=r"class_weights=balanced: .*the counts by class of single clients"):
        run_on_table(table, tmp_path / "refused", f"{secure} task.loss.class_weights=balanced")
    run = run_on_table(table, tmp_path / "run", f"{secure} task.loss.class_weights={{ill:24,well:1}} optimizer.lr=0.01")
    assert summary(run)["test_recall"] > 0.7


def test_balanced_weights_are_refused_where_counts_must_not_leave_clients() -> None:
    private = "privacy=dp_sgd train.val_fraction=0 federation.final_evaluation=false data=breast_cancer model=mlp"
    private += " data.scaling=published partition=iid task/loss=focal"
    with pytest.raises(ConfigError, match=r"class_weights=balanced: under privacy=dp_sgd the counts by class"):
        check_config(compose([*private.split(), "task.loss.class_weights=balanced"]))
    check_config(compose([*private.split(), "task.loss.class_weights={malignant:2,benign:1}"]))


def test_the_mean_weighs_examples_and_not_batches() -> None:
    loss = CrossEntropy(class_weights={"well": 1, "ill": 3}).of(CLASSES)
    plain = CrossEntropy().per_example(LOGITS, LABELS)
    assert torch.allclose(loss.per_example(LOGITS, LABELS), plain * torch.tensor([1.0, 3.0, 3.0]))
    assert torch.allclose(loss.mean(LOGITS, LABELS), (plain * torch.tensor([1.0, 3.0, 3.0])).mean())


def test_the_focal_loss_by_hand() -> None:
    chance = torch.softmax(LOGITS, 1)[torch.arange(3), LABELS]
    expected = -((1 - chance) ** 1.5) * chance.log()
    assert torch.allclose(Focal(gamma=1.5).per_example(LOGITS, LABELS), expected)
    assert torch.allclose(Focal(gamma=0.0).per_example(LOGITS, LABELS), CrossEntropy().per_example(LOGITS, LABELS))
    weighted = Focal(gamma=1.5, class_weights={"well": 0, "ill": 2}).of(CLASSES)
    assert torch.allclose(weighted.per_example(LOGITS, LABELS), expected * torch.tensor([0.0, 2.0, 2.0]))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_it_has_a_gradient_everywhere_and_one_by_one(gamma: float) -> None:
    loss = Focal(gamma=gamma, class_weights={"well": 1, "ill": 3}).of(CLASSES)
    logits = torch.cat([LOGITS, torch.tensor([[200.0, -200.0], [-200.0, 200.0]])])
    labels = torch.cat([LABELS, torch.tensor([0, 0])])
    each = vmap(grad(lambda one, target: loss.per_example(one[None], target[None]).sum()))(logits, labels)
    whole = grad(lambda values: loss.mean(values, labels))(logits)
    assert whole.isfinite().all()
    torch.testing.assert_close(whole, each / len(labels))


@pytest.mark.parametrize(
    "weights", ["{well:1}", "{well:1,ill:-1}", "{well:0,ill:0}", "{well:1,ill:1,dead:1}", "[1,2]", "even"]
)
def test_weights_that_are_none_are_refused(table: Path, weights: str) -> None:
    line = f"data=csv data.path={table} data.label=state model=mlp task/loss=cross_entropy"
    with pytest.raises(ConfigError, match=r"task.loss.class_weights="):
        check_config(compose([*line.split(), f"task.loss.class_weights={weights}"]))
