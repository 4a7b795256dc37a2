"""Data, models and kinds of task that are none of the package's own: tokens for inputs, several labels for a target."""

import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from in_process import run_in_process
from own_conf import conf_of_own
from torch import Tensor, nn

from fedapp.common.errors import ConfigError, DataError, FederationError
from fedapp.config import CONF_DIR
from fedapp.data.source import Examples, Schema
from fedapp.learning.tasks.by_schema import by_schema
from fedapp.learning.training import LocalTraining
from fedapp.models.fit import check_fits
from fedapp.models.input_layer import assemble

TEXT = Schema((6,), classes=("dull", "bright"), vocabulary=50)


def sentences(count: int) -> Examples:
    """A sentence is bright where it holds a token of 40..49."""
    random = torch.Generator().manual_seed(count)
    tokens, labels = torch.randint(40, (count, 6), generator=random), torch.arange(count) % 2
    tokens[labels == 1, 0] = torch.randint(40, 50, (int(labels.sum()),), generator=random)
    return Examples(tokens, labels)


class Words(nn.Module):
    """(B, T) tokens to (B, num_outputs)."""

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(schema.vocabulary, 8), nn.Linear(8, schema.num_outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embedding(tokens).mean(1))
        return logits


def test_a_model_of_ones_own_learns_from_tokens() -> None:
    task = by_schema(TEXT)
    torch.manual_seed(0)
    model = assemble(Words(TEXT), task.input_layer())
    check_fits(model, task.example_inputs, task.output_shape)
    train, test = task.check(sentences(200), "train"), task.check(sentences(100), "test")
    before = task.evaluate(model, test)
    sgd = lambda parameters: torch.optim.SGD(parameters, lr=0.5)  # noqa: E731
    one_step = LocalTraining(loss=task.loss, optimizer=sgd, local_epochs=1, batch_size=200)
    assert one_step(model, train, seed=(0,)).steps == 1
    after = task.evaluate(model, test)
    replace(one_step, local_epochs=50, batch_size=20)(model, train, seed=(1,))
    learnt = task.evaluate(model, test)
    assert before is not None
    assert after is not None
    assert learnt is not None
    assert learnt.loss < after.loss < before.loss
    assert learnt.metrics["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        (Examples(torch.zeros(2, 6), torch.tensor([0, 1])), "x: tokens are torch.float32, .* must be int64"),
        (Examples(torch.full((2, 6), 50), torch.tensor([0, 1])), r"x: a token index lies outside 0\.\.49"),
        (Examples(torch.zeros(2, 6).long(), torch.tensor([0, 2])), r"x: a label index lies outside 0\.\.1"),
        (Examples(torch.zeros(2, 6).long(), torch.zeros(2)), "x: labels are torch.float32, class indices must be"),
        (Examples(torch.zeros(2, 6).long(), torch.zeros(2, 3).long()), r"x: labels have shape \(2, 3\), one class"),
        (Examples(torch.zeros(2, 6).long(), torch.zeros(3).long()), "x: 2 inputs, but 3 labels"),
    ],
)
def test_what_does_not_fit_is_refused(examples: Examples, message: str) -> None:
    with pytest.raises(DataError, match=f"^{message}"):
        by_schema(TEXT).check(examples, "x")


def test_a_regression_has_one_finite_number_an_example() -> None:
    task = by_schema(Schema((1,)))
    for targets in (torch.tensor([1.0, float("nan")]), torch.ones(2, 2)):
        with pytest.raises(DataError, match=r"^x: "):
            task.check(Examples(torch.ones(2, 1), targets), "x")
    task.check(Examples(torch.ones(2, 1), torch.ones(2)), "x")


# --- a kind of one's own: a module, and YAML files -----------------------------------------------------------------

MODULE = """
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from fedapp.common.errors import DataError
from fedapp.data.source import DataSource, Examples, Pooled, Schema
from fedapp.learning.losses import Loss
from fedapp.learning.metrics import Metric
from fedapp.learning.task import Task


class LabelSchema(Schema):
    @property
    def kind(self):
        return "several_labels"


class Binary(Loss):
    serves = "several_labels"

    def per_example(self, outputs, targets):
        return binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(1)


class Hamming(Metric):
    serves = "several_labels"

    def __call__(self, outputs, targets):
        return float(((outputs > 0) == (targets > 0)).double().mean())


@dataclass(frozen=True)
class SeveralLabels(Task):
    kind = "several_labels"
    criterion: Loss = field(default_factory=Binary)
    metrics: dict = field(default_factory=lambda: {"hamming": Hamming("hamming")})

    def example_targets(self, count):
        return torch.zeros(count, len(self.schema.classes))

    def check_targets(self, targets, name):
        if targets.shape[1:] != (len(self.schema.classes),):
            raise DataError(f"{name}: not so many labels")

    def predictions(self, outputs):
        return outputs.sigmoid()

    @property
    def columns(self):
        return self.schema.classes

    def row(self, prediction):
        return [f"{value:.2f}" for value in prediction]

    line = row


class Signs(DataSource):
    def schema(self):
        return LabelSchema((3,), ("a", "b", "c"))

    def pooled(self):
        inputs = torch.randn(120, 3, generator=torch.Generator().manual_seed(0))
        examples = Examples(inputs, (inputs > 0).float())
        return Pooled(examples.take(range(90)), examples.take(range(90, 120)))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A copy of conf/ with files for MODULE, and no change to the package."""
    conf = Path(shutil.copytree(CONF_DIR, tmp_path / "conf"))
    (tmp_path / "own_kind.py").write_text(MODULE)
    for file, target in {
        "task/kind/several_labels": "SeveralLabels",
        "metric/hamming": "Hamming",
        "data/signs": "Signs",
    }.items():
        (conf / f"{file}.yaml").write_text(f"_target_: own_kind.{target}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with conf_of_own(monkeypatch, conf):
        yield
    sys.modules.pop("own_kind", None)


RUN = "data=signs model=logistic_regression partition=iid federation.num_clients=3 federation.num_rounds=4"


def test_a_kind_is_a_module_and_yaml_files(own: None, tmp_path: Path) -> None:
    directory = run_in_process(tmp_path / "run", f"{RUN} optimizer.lr=1.0 train.local_epochs=10 task.metrics=[hamming]")
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    judged = [row["test_hamming"] for row in rows if row.get("test_hamming") is not None]
    assert judged[-1] > 0.9
    assert [row["val_hamming"] for row in rows if row.get("val_hamming") is not None]


@pytest.mark.slow
def test_its_losses_and_metrics_are_its_own(own: None, tmp_path: Path) -> None:
    for override, part in {
        "task.metrics=[accuracy]": r"must be auto or a list out of hamming \(several_labels\)$",
        "task/loss=huber": r"is a loss for regression, this task is a several_labels\. Choose task/loss=auto$",
        "federation.target_accuracy=0.5": r"needs a classification task, this one is a several_labels",
    }.items():
        with pytest.raises(ConfigError, match=part):
            run_in_process(tmp_path / "run", f"{RUN} {override}")


def test_a_run_refuses_targets_that_the_task_cannot_have(own: None, tmp_path: Path) -> None:
    source = tmp_path / "own_kind.py"
    source.write_text(MODULE.replace("(inputs > 0).float()", "(inputs > 0)[:, :2].float()"))
    with pytest.raises(DataError, match="the server's test data: not so many labels"):
        run_in_process(tmp_path / "run", RUN)
    source.write_text(source.read_text().replace("examples.take(range(90, 120))", "None"))
    importlib.reload(sys.modules["own_kind"])
    with pytest.raises(FederationError, match="Signs: not so many labels"):  # as its clients say in the preflight
        run_in_process(tmp_path / "again", RUN)
