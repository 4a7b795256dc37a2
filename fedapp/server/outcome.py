"""What came of a round, as values that the loop records and reports."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fedapp.learning.metrics import lower_is_better, possible
from fedapp.server.exchange import Late
from fedapp.wire.records import text
from fedapp.wire.reply import ClientReport

__all__ = ["RoundOutcome", "federated_metrics", "round_line"]


@dataclass
class RoundOutcome:
    """A round's ledger, filled as replies arrive.

    `weights`: of the clients asked, normalised over them. `reports`: by client, one for each that answered or failed.
    `strays`: rejections that belong to no client asked (a stranger's, a late or a second reply). `unused`: clients that
    did nothing wrong and yet are not in the mean, with why. `excluded`: clients that have failed once too often, with
    the last round for which they are left out. `left_out`: how many were being left out when the round began. `summed`:
    under secure aggregation, the figures that were opened together with the sum of updates, and all there are.
    """

    server_round: int
    weights: Mapping[int, float]
    reports: dict[int, ClientReport] = field(default_factory=dict)
    strays: list[str] = field(default_factory=list)
    unused: dict[int, str] = field(default_factory=dict)
    excluded: dict[int, int] = field(default_factory=dict)
    left_out: int = 0
    bytes_down: int = 0
    bytes_up: int = 0
    changed: bool = False
    summed: Mapping[str, float | None] | None = None

    def add_late(self, replies: Iterable[Late]) -> None:
        """Book replies to earlier rounds: an overdue one is rejected, one that was not waited for is not."""
        for late in replies:
            self.bytes_up += late.tensor_bytes
            if late.overdue:
                self.strays.append(f"SuperNode {late.node} replied too late: to round {text(late.group)}")

    def reject(self, client: int, reason: str) -> None:
        self.reports[client] = ClientReport(client, rejected=reason)

    def figures(
        self,
        times: Mapping[str, float],
        test: Mapping[str, float | int | None],
        federated: Mapping[str, float | int | None],
        epsilon: Mapping[str, float],
    ) -> dict[str, float | int | None]:
        """The round in figures, as a line of metrics.jsonl has them."""
        return {
            "round": self.server_round,
            **times,
            **test,
            "train_loss": self.train_loss,
            **federated,
            "cohort": len(self.weights),
            "replied": len(self.good),
            "rejected": self.rejected,
            "unused": len(self.unused),
            "excluded": self.left_out,
            **epsilon,
            **({"clipped": self.summed["clipped"]} if self.summed and "clipped" in self.summed else {}),
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
        }

    @property
    def good(self) -> list[ClientReport]:
        """Reports with nothing wrong, by client; who declined is not among them."""
        found = [self.reports[client] for client in sorted(self.reports)]
        return [report for report in found if report.rejected is None and not report.declined]

    @property
    def used(self) -> list[ClientReport]:
        """Reports of the clients whose updates are in the mean."""
        return [report for report in self.good if report.client not in self.unused]

    @property
    def rejected(self) -> int:
        return sum(report.rejected is not None for report in self.reports.values()) + len(self.strays)

    @property
    def train_loss(self) -> float | None:
        """Mean local training loss, weighted as the server weights clients, over those used."""
        if self.summed is not None:
            return self.summed.get("train_loss")
        losses = [(self.weights[r.client], r.train_loss) for r in self.used if r.train_loss is not None]
        total = math.fsum(weight for weight, _ in losses)
        return math.fsum(weight * loss for weight, loss in losses) / total if losses else None

    def federated(self, main_metric: str, num_examples: Mapping[int, int]) -> dict[str, float | None]:
        """Figures on the clients' validation splits, as `federated_metrics` has them.

        Of sums there is no spread over clients, and each counts by the weight of its update.
        """
        found = federated_metrics(self.good, main_metric, num_examples)
        if self.summed is not None:
            found |= {"val_loss": self.summed.get("val_loss"), f"val_{main_metric}": self.summed.get("val_metric")}
        return found


def federated_metrics(
    reports: Sequence[ClientReport], main_metric: str, num_examples: Mapping[int, int]
) -> dict[str, float | None]:
    """Loss and main metric on the clients' validation splits.

    `val_<metric>` is over all validation examples; `_mean` over clients, each counting the same; `_worst_decile` the
    mean of the tenth of clients (at least one) that are worst off. Impossible figures do not count, and nobody's
    validation split counts for more than `num_examples`, its training examples in the preflight.
    """
    judged = [
        (min(r.val_examples, num_examples[r.client]), r.val_loss, r.val_metric)
        for r in reports
        if r.val_examples and r.val_loss is not None and r.val_metric is not None
        if possible("loss", r.val_loss) and possible(main_metric, r.val_metric)
    ]
    names = ("val_loss", f"val_{main_metric}", f"val_{main_metric}_mean", f"val_{main_metric}_worst_decile")
    if not judged:
        return dict.fromkeys(names)
    total = sum(count for count, _, _ in judged)
    values = sorted((metric for _, _, metric in judged), reverse=lower_is_better(main_metric))
    worst = values[: math.ceil(len(values) / 10)]
    figures = (
        math.fsum(count * loss for count, loss, _ in judged) / total,
        math.fsum(count * metric for count, _, metric in judged) / total,
        math.fsum(values) / len(values),
        math.fsum(worst) / len(worst),
    )
    return dict(zip(names, figures, strict=True))


def round_line(figures: Mapping[str, float | int | None]) -> str:
    """A round in one line for the terminal."""
    names = [name for name in figures if name.startswith("test_")] or [n for n in figures if n.startswith("val_")]
    parts = [f"{name} {value:.4f}" for name in names if (value := figures[name]) is not None]
    counts = f"{figures['replied']}/{figures['cohort']} clients"
    return "  ".join([*parts, counts, f"{figures['seconds']:.2f} s"])
