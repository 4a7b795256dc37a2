"""What came of a round, as values that a run records, reports and stops by."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median_low
from typing import Any

from fedapp.aggregation.reply_log import ReplyLog
from fedapp.common.shown_figures import shown_figures
from fedapp.learning.metrics import of_averages
from fedapp.learning.task import Task
from fedapp.server.population.count_bound import CountBound
from fedapp.wire.reply import ClientReport

__all__ = [
    "Metrics",
    "RoundOutcome",
    "federated_metrics",
    "mean_train_loss",
    "most_said",
    "own_metrics",
    "round_line",
    "validation_metrics",
]

Metrics = dict[str, float | int | None]


@dataclass(frozen=True)
class RoundOutcome:
    """`weights`: of the clients asked, normalised over them. `replies`: what became of each. `changed`: whether there
    is another model than before. `test` and `validation`: metrics on the server's data and on the clients'
    validation splits; `skipped_test`: the model was not evaluated on the server's data. `excluded`: clients that
    have failed once too often, with the last round for which they are left out; `left_out`: how many were being
    left out when the round began. `scalars`: means that were aggregated along with the updates, and all there are,
    where no client's own may be seen. `figures`: what else metrics.jsonl says of the round. `warnings`: by kind,
    what a person must know. `secret_cohort`: who was asked, and how many, is told nobody. `details`: by client,
    what else clients.jsonl says of it.
    """

    server_round: int
    weights: Mapping[int, float]
    replies: ReplyLog
    changed: bool = False
    test: Metrics = field(default_factory=dict)
    skipped_test: bool = False
    validation: Metrics = field(default_factory=dict)
    excluded: Mapping[int, int] = field(default_factory=dict)
    left_out: int = 0
    scalars: Mapping[str, float | None] | None = None
    warnings: Mapping[str, str] = field(default_factory=dict)
    figures: Metrics = field(default_factory=dict)
    secret_cohort: bool = False
    details: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)

    def metrics(self) -> Metrics:
        """The round in numbers, as a line of metrics.jsonl has them."""
        replies = self.replies
        if self.secret_cohort:
            return {"round": self.server_round, **self.test, **self.figures}
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
            **{name: self.scalars[name] for name in ("clipped", "wrapped") if self.scalars and name in self.scalars},
            "bytes_up": replies.bytes_up,
            "bytes_down": replies.bytes_down,
            **self.figures,
        }

    @property
    def stray_rows(self) -> list[dict[str, Any]]:
        """Lines of clients.jsonl for what belongs to no client asked."""
        return [{"round": self.server_round, "client": None, "rejected": stray} for stray in self.replies.strays]

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
    bound: CountBound | None = None,
) -> Metrics:
    """Metrics on the clients' validation splits, as `federated_metrics` has them.

    Of aggregated `scalars` there is no spread over clients, and each counts by the weight of its update.
    """
    found = federated_metrics(replies.good, task, num_examples, bound)
    if scalars is not None:
        means = {name: mean for name in task.metrics if (mean := scalars.get(f"val_{name}")) is not None}
        found |= {"val_loss": scalars.get("val_loss"), **dict.fromkeys(f"val_{name}" for name in task.metrics)}
        found |= {f"val_{name}": value for name, value in of_averages(task.metrics, means).items()}
    return found


def federated_metrics(
    reports: Sequence[ClientReport], task: Task, num_examples: Mapping[int, int], bound: CountBound | None = None
) -> Metrics:
    """Loss and metrics on the clients' validation splits.

    `val_<metric>` weighs each client by its validation examples, and of a function of a mean averages what is inside
    (`Metric.to_average`); in `_mean` each counts the same; `_worst_decile` is the mean of the tenth of clients (at
    least one) that are worst off. Clients for which a metric is not defined are
    not in it. A report with an impossible figure does not count, and nobody's validation split counts for more than
    `num_examples`: of its training examples in the preflight, those that count. With `bound` losses, and metrics that
    have no largest value, count in `val_<name>` as far as `_within` lets them: none decides it alone.
    """
    times = bound.multiple if bound is not None else math.inf
    judged = [
        (min(report.val_examples, num_examples[report.client]), report.val_loss, values)
        for report in reports
        if report.val_examples and report.val_loss is not None
        for values in [of_averages(task.metrics, report.val_metrics)]
        if _possible(report.val_loss, values, task)
    ]
    found: Metrics = {"val_loss": _mean(_within([(count, loss) for count, loss, _ in judged], times))}
    for name, metric in task.metrics.items():
        pairs = [(count, values[name]) for count, _, values in judged if name in values]
        ranked = sorted((value for _, value in pairs), reverse=metric.lower_is_better)
        worst = ranked[: math.ceil(len(ranked) / 10)]
        bounded = pairs if math.isfinite(metric.largest) else _within(pairs, times)
        mean = _mean([(count, metric.to_average(value)) for count, value in bounded])
        found[f"val_{name}"] = None if mean is None else metric.of_average(mean)
        found[f"val_{name}_mean"] = math.fsum(ranked) / len(ranked) if ranked else None
        found[f"val_{name}_worst_decile"] = math.fsum(worst) / len(worst) if worst else None
    return found


def own_metrics(
    reports: Sequence[ClientReport], task: Task, num_examples: Mapping[int, int], bound: CountBound | None = None
) -> Metrics:
    """The same, named `own_<metric>`, of clients' own models beside the global one; nothing where there are none."""
    stood_in = [
        replace(report, val_metrics=report.own_metrics, val_loss=task.criterion.lowest)
        for report in reports
        if report.own_metrics
    ]
    found = federated_metrics(stood_in, task, num_examples, bound) if stood_in else {}
    return {name.replace("val_", "own_", 1): value for name, value in found.items() if name != "val_loss"}


def _possible(loss: float, metrics: Mapping[str, float], task: Task) -> bool:
    known = (task.metrics[name].possible(value) for name, value in metrics.items() if name in task.metrics)
    return loss >= task.criterion.lowest and all(known)


def _within(pairs: list[tuple[int, float]], times: float) -> list[tuple[int, float]]:
    """Values between the clients' median over `times` and the median times it; all of them, where it is 0 or less."""
    middle = median_low([value for _, value in pairs]) if pairs else 0.0
    if middle <= 0 or math.isinf(times):
        return pairs
    return [(count, min(max(value, middle / times), middle * times)) for count, value in pairs]


def _mean(pairs: Sequence[tuple[int, float]]) -> float | None:
    """Of values by their counts; None where there are none."""
    total = sum(count for count, _ in pairs)
    return math.fsum(count * value for count, value in pairs) / total if total else None


def most_said(replies: ReplyLog) -> str:
    """The most frequent reason why clients sent nothing, as an end of a message; "" where there is none."""
    reasons = Counter(report.rejected for report in replies.reports.values() if report.rejected)
    if not reasons:
        return ""
    ((reason, count),) = reasons.most_common(1)
    return f". In the last round {count} of {len(replies.reports)} clients said: {reason}"


def round_line(metrics: Mapping[str, float | int | None]) -> str:
    """A round in one line for the terminal."""
    counts = [f"{metrics['replied']}/{metrics['cohort']} clients"] if "cohort" in metrics else []
    seconds = [f"{metrics['seconds']:.2f} s"] if "seconds" in metrics else []
    return "  ".join([*shown_figures(metrics), *counts, *seconds])
