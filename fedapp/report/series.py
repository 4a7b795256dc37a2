"""What the plots and tables show, worked out from the lines of a run."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from fedapp.report.read import Record, RunData, number
from fedapp.report.units import client_order

__all__ = [
    "Participation",
    "Series",
    "by_round",
    "client_metric",
    "client_metrics",
    "client_values",
    "epsilon_by_round",
    "final_values",
    "headline_metric",
    "lower_is_better",
    "participation",
    "server_metrics",
    "validation",
    "worst_first",
]

ERRORS = ("loss", "mae")  # lower is better; of a run that has no summary.json yet, which names its own


@dataclass(frozen=True)
class Series:
    """Points of one line, in ascending `rounds`; where a file holds no number there is no point."""

    rounds: tuple[int, ...]
    values: tuple[float, ...]

    def __bool__(self) -> bool:
        return bool(self.rounds)


@dataclass(frozen=True)
class Participation:
    """Who was asked when. `accepted`, `rejected` and `unused` (nothing wrong, yet not in the mean) hold pairs
    (client, round)."""

    clients: tuple[Any, ...]
    rounds: tuple[int, ...]
    accepted: frozenset[tuple[Any, int]]
    rejected: frozenset[tuple[Any, int]]
    unused: frozenset[tuple[Any, int]] = frozenset()


def by_round(run: RunData, key: str, *, shift: int = 0) -> Series:
    """The values of `key` in metrics.jsonl over `round + shift`."""
    return _series((line["round"] + shift, number(line.get(key))) for line in run.rounds)


def validation(run: RunData, name: str) -> Series:
    """Federated validation of the global model after each round.

    Clients evaluate the model that their round begins with, so the figures in the line of round r belong to the
    model after round r - 1; the last model's come from the final evaluation.
    """
    points = list(zip(*_pair(by_round(run, f"val_{name}", shift=-1)), strict=True))
    scored = [(number(line.get(f"val_{name}")), number(line.get("val_examples")) or 0.0) for line in run.final]
    total = sum(examples for value, examples in scored if value is not None)
    if total > 0:
        mean = sum(value * examples for value, examples in scored if value is not None) / total
        points.append((run.final[-1]["round"], mean))
    return _series(points)


def client_values(run: RunData, key: str) -> dict[int, tuple[float, ...]]:
    """`key` of every client that reported it, by the round after which the model stood that they evaluated."""
    grouped: dict[int, dict[Any, float]] = defaultdict(dict)
    for lines, shift in ((run.clients, -1), (run.final, 0)):
        for line in lines:
            value = number(line.get(key))
            if value is not None:
                grouped[line["round"] + shift][line.get("client")] = value
    return {index: tuple(grouped[index].values()) for index in sorted(grouped)}


def final_values(run: RunData, key: str) -> dict[Any, float]:
    """`key` of every client in the final evaluation, in order of client."""
    values = {line.get("client"): number(line.get(key)) for line in run.final}
    return {client: value for client in sorted(values, key=client_order) if (value := values[client]) is not None}


def server_metrics(run: RunData) -> list[str]:
    """Names of the metrics the server measured, the headline first and the loss last."""
    lines: list[Record] = [*run.rounds, run.summary]
    found = {key for line in lines for key in line if key.startswith("test_") and number(line[key]) is not None}
    names = {key.removeprefix("test_") for key in found}
    return sorted(names, key=lambda name: (name == "loss", name != "accuracy", name))


def headline_metric(run: RunData) -> str | None:
    """`accuracy` where there is one, else the first other metric; None where there is only a loss."""
    if by_round(run, "test_accuracy") or validation(run, "accuracy"):
        return "accuracy"
    measured = [name for name in server_metrics(run) if by_round(run, f"test_{name}")]
    names = [*measured, client_metric(run) or "loss"]
    return next((name for name in names if name != "loss"), None)


def client_metric(run: RunData) -> str | None:
    """The first of `client_metrics`; None where clients report nothing, as under DP."""
    return next(iter(client_metrics(run)), None)


def client_metrics(run: RunData) -> list[str]:
    """What clients report of their validation data: `accuracy` first, the `loss` last."""
    lines = (*run.clients, *run.final)
    found = {
        key.removeprefix("val_")
        for line in lines
        for key, value in line.items()
        if key.startswith("val_") and number(value) is not None
    }
    return sorted(found - {"examples"}, key=lambda name: (name == "loss", name != "accuracy", name))


def lower_is_better(run: RunData, metric: str) -> bool:
    return metric in run.summary.get("lower_is_better", ERRORS)


def worst_first(run: RunData, metric: str, values: Iterable[float]) -> list[float]:
    """`values` sorted: errors from the highest, scores from the lowest."""
    return sorted(values, reverse=lower_is_better(run, metric))


def participation(run: RunData) -> Participation:
    """Every known client, also those that never took part, and the outcome of each time one was asked."""
    # A message that belongs to no client asked, such as a stranger's, is recorded without one.
    asked = [line for line in run.clients if line.get("client") is not None]
    seen = {line["client"] for line in (*asked, *run.final) if line.get("client") is not None}
    count = number(run.summary.get("clients"))
    if count is not None and all(type(client) is int and 0 <= client < count for client in seen):
        seen |= set(range(int(count)))  # numbered without gaps, as in a simulation
    accepted = frozenset(
        (line["client"], line["round"]) for line in asked if not line.get("rejected") and not line.get("unused")
    )
    rejected = frozenset((line["client"], line["round"]) for line in asked if line.get("rejected"))
    rounds = {line["round"] for line in (*run.rounds, *run.clients) if line["round"] > 0}
    return Participation(
        clients=tuple(sorted(seen, key=client_order)),
        rounds=tuple(range(min(rounds), max(rounds) + 1)) if rounds else (),
        accepted=accepted,
        unused=frozenset((line["client"], line["round"]) for line in asked if line.get("unused")),
        rejected=rejected - accepted,  # a duplicate is turned away beside the reply that counted
    )


def epsilon_by_round(run: RunData) -> dict[Any, Series]:
    """By client, what it has spent after each round: what is spent stays spent. Empty where nobody has spent any."""
    rounds = sorted({line["round"] for line in (*run.rounds, *run.clients) if line["round"] > 0})
    spent: dict[Any, dict[int, float]] = {}
    for line in run.clients:
        if (epsilon := number(line.get("epsilon"))) is not None:
            spent.setdefault(line.get("client"), {})[line["round"]] = epsilon
    found = {}
    for client in sorted(spent, key=client_order):
        values = accumulate((spent[client].get(index, 0.0) for index in rounds), max)
        found[client] = Series(tuple(rounds), tuple(values))
    return found


def _pair(series: Series) -> tuple[tuple[int, ...], tuple[float, ...]]:
    return series.rounds, series.values


def _series(points: Iterable[tuple[int, float | None]]) -> Series:
    kept = sorted((index, value) for index, value in points if value is not None)
    return Series(tuple(index for index, _ in kept), tuple(value for _, value in kept))
