"""What a SuperNode answers to train and evaluate messages."""

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field

from flwr.app import ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from fedapp.wire.records import (
    ARRAYS,
    CONFIG,
    METRICS,
    absent,
    arrays_to_state,
    count,
    numbers,
    present,
    state_to_arrays,
    text,
    whole,
)

__all__ = ["ClientReport", "PrivacySpent", "Reply", "pack_reply", "unpack_reply"]


@dataclass(frozen=True)
class PrivacySpent:
    """Noise and sample rate of this round, and epsilon at `delta` over all that the client ever did."""

    noise_multiplier: float
    sample_rate: float
    epsilon: float
    delta: float


@dataclass(frozen=True)
class ClientReport:
    """One client's part of a reply. `rejected` holds the reason why its update is not in the arrays.

    `declined`: it takes part no more, for its privacy budget is spent. `privacy`: what it has spent, under DP-SGD.
    `delivered`: it has kept the run's result. `val_metrics`: by name, as they are averaged over clients
    (`Metric.to_average`); one that is not defined is not there. `own_metrics`: the same of the
    client's own model, where it has one beside the global one.
    """

    client: int
    rejected: str | None = None
    declined: bool = False
    delivered: bool = False
    num_examples: int = 0
    steps: int = 0
    seconds: float = 0.0
    train_loss: float | None = None
    val_examples: int = 0
    val_loss: float | None = None
    val_metrics: Mapping[str, float] = field(default_factory=dict)
    own_metrics: Mapping[str, float] = field(default_factory=dict)
    privacy: PrivacySpent | None = None


@dataclass(frozen=True)
class Reply:
    """A SuperNode's reply: the reports of its clients and, after training, their updates.

    `updates`: the floats of clients that are not rejected, each as it is; or `total`: their weighted sum, int64 fixed
    point, over all that are not rejected.
    """

    reports: tuple[ClientReport, ...]
    updates: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)
    total: Mapping[str, Tensor] = field(default_factory=dict)


# One list a column, one entry a client: a MetricRecord holds numbers and lists of numbers.
COLUMNS = ("num-examples", "steps", "seconds", "train-loss", "val-examples", "val-loss")
VAL_METRIC, OWN_METRIC = "val-metric/", "own-metric/"  # and the name of a metric, a column for each
PRIVACY = ("noise-multiplier", "sample-rate", "epsilon", "delta")  # these columns only under DP-SGD


def pack_reply(reply: Reply) -> RecordDict:
    rows = [
        (
            report.num_examples,
            report.steps,
            report.seconds,
            present(report.train_loss),
            report.val_examples,
            present(report.val_loss),
        )
        for report in reply.reports
    ]
    columns = [[float(row[i]) for row in rows] for i in range(len(COLUMNS))]
    config = ConfigRecord(
        {
            "clients": [report.client for report in reply.reports],
            "rejected": [report.rejected or "" for report in reply.reports],
            "declined": [report.declined for report in reply.reports],
            "delivered": [report.delivered for report in reply.reports],
        }
    )
    metrics = MetricRecord(dict(zip(COLUMNS, columns, strict=True)))
    of_models = {
        VAL_METRIC: [report.val_metrics for report in reply.reports],
        OWN_METRIC: [report.own_metrics for report in reply.reports],
    }
    for prefix, found in of_models.items():
        for name in dict.fromkeys(name for values in found for name in values):
            metrics[prefix + name] = [present(values.get(name)) for values in found]
    if any(report.privacy for report in reply.reports):
        spent = [astuple(report.privacy) if report.privacy else (math.nan,) * 4 for report in reply.reports]
        for name, column in zip(PRIVACY, zip(*spent, strict=True), strict=True):
            metrics[name] = [float(value) for value in column]
    content = RecordDict({CONFIG: config, METRICS: metrics})
    if reply.total:
        content[ARRAYS] = state_to_arrays(reply.total)
    for client, update in reply.updates.items():
        content[f"{ARRAYS}-{client}"] = state_to_arrays(update)
    return content


def unpack_reply(content: RecordDict) -> Reply:
    """A reply as values; its tensors are for reading only. Raises ValueError, KeyError or TypeError if malformed."""
    config, metrics = content.config_records[CONFIG], content.metric_records[METRICS]
    clients, reasons = numbers(config["clients"]), config["rejected"]
    columns = [numbers(metrics[name]) for name in COLUMNS]
    if not isinstance(reasons, list) or {len(column) for column in columns} | {len(reasons)} != {len(clients)}:
        raise ValueError("the lists of a reply differ in length")
    flags = [config[name] for name in ("declined", "delivered")]
    if not all(isinstance(flag, list) and len(flag) == len(clients) for flag in flags):
        raise ValueError("the lists of a reply differ in length")
    spent = _privacy(metrics, len(clients))
    judged = [_named_metrics(metrics, prefix, len(clients)) for prefix in (VAL_METRIC, OWN_METRIC)]
    rows = zip(clients, reasons, *flags, spent, *judged, zip(*columns, strict=True), strict=True)  # type: ignore[arg-type]
    reports = tuple(_report(*row) for row in rows)
    found = {name: arrays_to_state(record, copy=False) for name, record in content.array_records.items()}
    total = found.pop(ARRAYS, {})
    return Reply(reports, {whole(int(name.removeprefix(f"{ARRAYS}-"))): found[name] for name in found}, total)


def _report(
    client: float,
    reason: object,
    declined: object,
    delivered: object,
    privacy: PrivacySpent | None,
    val_metrics: Mapping[str, float],
    own_metrics: Mapping[str, float],
    figures: tuple[float, ...],
) -> ClientReport:
    examples, steps, seconds, train_loss, val_examples, val_loss = figures
    return ClientReport(
        client=whole(client),
        rejected=text(reason) or None,
        declined=bool(declined),
        delivered=bool(delivered),
        num_examples=count(examples),
        steps=count(steps),
        seconds=absent(seconds) or 0.0,
        train_loss=absent(train_loss),
        val_examples=count(val_examples),
        val_loss=absent(val_loss),
        val_metrics=val_metrics,
        own_metrics=own_metrics,
        privacy=privacy,
    )


def _named_metrics(metrics: MetricRecord, prefix: str, count: int) -> list[dict[str, float]]:
    """By client, its metrics by name. Names are the sender's; whoever reads them looks for those that it knows."""
    found: list[dict[str, float]] = [{} for _ in range(count)]
    for key in metrics:
        if not key.startswith(prefix):
            continue
        column = numbers(metrics[key])
        if len(column) != count:
            raise ValueError("the lists of a reply differ in length")
        for row, value in zip(found, column, strict=True):
            if (known := absent(value)) is not None:
                row[key.removeprefix(prefix)] = known
    return found


def _privacy(metrics: MetricRecord, count: int) -> list[PrivacySpent | None]:
    """By client, what it says that it has spent; epsilon may be infinite, and is then absent to whoever reads it."""
    if PRIVACY[0] not in metrics:
        return [None] * count
    columns = [numbers(metrics[name]) for name in PRIVACY]
    if {len(column) for column in columns} != {count}:
        raise ValueError("the lists of a reply differ in length")
    rows = zip(*columns, strict=True)
    return [None if math.isnan(row[0]) else PrivacySpent(*(float(value) for value in row)) for row in rows]
