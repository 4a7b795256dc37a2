"""What came of a round, as values that a run records, reports and stops by."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fedapp.aggregation.reply_log import ReplyLog
from fedapp.learning.task import Task
from fedapp.wire.reply import ClientReport

__all__ = ["Metrics", "RoundOutcome", "federated_metrics", "mean_train_loss", "round_line", "validation_metrics"]

Metrics = dict[str, float | int | None]


@dataclass(frozen=True)
class RoundOutcome:
    """`weights`: of the clients asked, normalised over them. `replies`: what became of each. `changed`: whether there
    is another model than before. `test` and `validation`: metrics on the server's data and on the clients' validation
    splits. `excluded`: clients that have failed once too often, with the last round for which they are left out;
    `left_out`: how many were being left out when the round began. `scalars`: means that were aggregated along with the
    updates, and all there are, where no client's own may be seen.
    """

    server_round: int
    weights: Mapping[int, float]
    replies: ReplyLog
    changed: bool = False
    test: Metrics = field(default_factory=dict)
    validation: Metrics = field(default_factory=dict)
    excluded: Mapping[int, int] = field(default_factory=dict)
    left_out: int = 0
    scalars: Mapping[str, float | None] | None = None

    def metrics(self) -> Metrics:
        """The round in numbers, as a line of metrics.jsonl has them."""
        replies = self.replies
        return {
            "round": self.server_round,
            **self.test,
            "train_loss": self.train_loss,
            **self.validation,
            "cohort": len(self.weights),
            "replied": len(replies.good),
            "rejected": replies.rejected,
            "unused": len(replies.unused),
            "excluded": self.left_out,
            **({"clipped": self.scalars["clipped"]} if self.scalars and "clipped" in self.scalars else {}),
            "bytes_up": replies.bytes_up,
            "bytes_down": replies.bytes_down,
        }

    @property
    def train_loss(self) -> float | None:
        return mean_train_loss(self.replies, self.weights, self.scalars)

    def judged(self, name: str) -> float | None:
        """The loss or a metric of the global model, by name: on the server's test data, else on validation splits."""
        return self.test.get(f"test_{name}", self.validation.get(f"val_{name}"))


def mean_train_loss(
    replies: ReplyLog, weights: Mapping[int, float], scalars: Mapping[str, float | None] | None
) -> float | None:
    """Mean local training loss, weighted as the server weights clients, over those used."""
    if scalars is not None:
        return scalars.get("train_loss")
    losses = [(weights[r.client], r.train_loss) for r in replies.used if r.train_loss is not None]
    total = math.fsum(weight for weight, _ in losses)
    return math.fsum(weight * loss for weight, loss in losses) / total if losses else None


def validation_metrics(
    replies: ReplyLog,
    scalars: Mapping[str, float | None] | None,
    task: Task,
    num_examples: Mapping[int, int],
) -> Metrics:
    """Metrics on the clients' validation splits, as `federated_metrics` has them.

    Of aggregated `scalars` there is no spread over clients, and each counts by the weight of its update.
    """
    found = federated_metrics(replies.good, task, num_examples)
    if scalars is not None:
        found |= {"val_loss": scalars.get("val_loss"), f"val_{task.main_metric}": scalars.get("val_metric")}
    return found


def federated_metrics(reports: Sequence[ClientReport], task: Task, num_examples: Mapping[int, int]) -> Metrics:
    """Loss and main metric on the clients' validation splits.

    `val_<metric>` is over all validation examples; `_mean` over clients, each counting the same; `_worst_decile` the
    mean of the tenth of clients (at least one) that are worst off. Impossible metrics do not count, and nobody's
    validation split counts for more than `num_examples`: of its training examples in the preflight, those that count.
    """
    judged = [
        (min(r.val_examples, num_examples[r.client]), r.val_loss, r.val_metric)
        for r in reports
        if r.val_examples and r.val_loss is not None and r.val_metric is not None
        if r.val_loss >= task.criterion.lowest and task.main.possible(r.val_metric)
    ]
    main_metric = task.main_metric
    names = ("val_loss", f"val_{main_metric}", f"val_{main_metric}_mean", f"val_{main_metric}_worst_decile")
    if not judged:
        return dict.fromkeys(names)
    total = sum(count for count, _, _ in judged)
    values = sorted((metric for _, _, metric in judged), reverse=task.main.lower_is_better)
    worst = values[: math.ceil(len(values) / 10)]
    found = (
        math.fsum(count * loss for count, loss, _ in judged) / total,
        math.fsum(count * metric for count, _, metric in judged) / total,
        math.fsum(values) / len(values),
        math.fsum(worst) / len(worst),
    )
    return dict(zip(names, found, strict=True))


def round_line(metrics: Mapping[str, float | int | None]) -> str:
    """A round in one line for the terminal."""
    names = [name for name in metrics if name.startswith("test_")] or [n for n in metrics if n.startswith("val_")]
    parts = [f"{name} {value:.4f}" for name in names if (value := metrics[name]) is not None]
    counts = f"{metrics['replied']}/{metrics['cohort']} clients"
    return "  ".join([*parts, counts, f"{metrics['seconds']:.2f} s"])
