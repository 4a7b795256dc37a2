"""Messages of the preflight: which clients a SuperNode hosts, and whether its data fits."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from fedapp.wire.records import ARRAYS, CONFIG, METRICS, arrays_to_state, count, numbers, state_to_arrays, text, whole

__all__ = ["MOMENTS", "PreflightReport", "pack_preflight", "unpack_preflight"]

MOMENTS = ("count", "mean", "squares")
LARGEST_INPUT = torch.finfo(torch.float32).max  # inputs are float32
LONGEST_NAME = 64  # characters of a site's name


@dataclass(frozen=True)
class PreflightReport:
    """What one SuperNode says of itself.

    `num_examples` counts training examples, one entry a client. `faults` holds, by client, what is wrong with its
    data ("" for nothing); `fault` what is wrong with the SuperNode as a whole. `moments` is empty unless the schema
    asks for federated scaling: then float64 tensors (clients, features) of the count, the mean and the sum of squared
    deviations of each feature. `code` is the digest of the code it runs, from folder `code_path`. `num_partitions` is
    how many SuperNodes share the data, as its node-config says; 0 on a device with data of its own. `backbone`: the
    digest of what of the model is frozen, and so never sent. `site`: what its operator calls it, "" for nothing.
    `data`: of simulations only, by client the digest of its examples; a device tells nothing of the kind. `role`: what
    it is other than a host of clients, "" for nothing.
    """

    code: str
    code_path: str
    clients: tuple[int, ...] = ()
    num_examples: tuple[int, ...] = ()
    faults: tuple[str, ...] = ()
    fault: str = ""
    moments: Mapping[str, Tensor] = field(default_factory=dict)
    num_partitions: int = 0
    backbone: str = ""
    site: str = ""
    data: tuple[str, ...] = ()
    role: str = ""


def pack_preflight(report: PreflightReport) -> RecordDict:
    config = ConfigRecord(
        {
            "code": report.code,
            "code-path": report.code_path,
            "clients": list(report.clients),
            "faults": list(report.faults),
            "fault": report.fault,
            "num-partitions": report.num_partitions,
            "backbone": report.backbone,
            "site": report.site,
            "data": list(report.data),
            "role": report.role,
        }
    )
    metrics = MetricRecord({"num-examples": list(report.num_examples)})
    content = RecordDict({CONFIG: config, METRICS: metrics})
    if report.moments:
        content[ARRAYS] = state_to_arrays(report.moments)
    return content


def unpack_preflight(content: RecordDict) -> PreflightReport:
    """A SuperNode's answer as values. Raises ValueError, KeyError or TypeError where it is malformed."""
    config = content.config_records[CONFIG]
    clients, faults = numbers(config["clients"]), config["faults"]
    counts = numbers(content.metric_records[METRICS]["num-examples"])
    digests = config["data"]
    if not isinstance(digests, list) or len(digests) not in (0, len(clients)):
        raise ValueError("the lists of a preflight report differ in length")
    if not isinstance(faults, list) or not len(clients) == len(faults) == len(counts):
        raise ValueError("the lists of a preflight report differ in length")
    moments = arrays_to_state(content.array_records[ARRAYS]) if ARRAYS in content.array_records else {}
    return PreflightReport(
        code=text(config["code"]),
        code_path=text(config["code-path"]),
        clients=tuple(whole(client) for client in clients),
        num_examples=tuple(count(number) for number in counts),
        faults=tuple(text(fault) for fault in faults),
        fault=text(config["fault"]),
        moments=_sound_moments(moments, counts),
        num_partitions=count(config["num-partitions"]),
        backbone=text(config["backbone"]),
        site=text(config["site"])[:LONGEST_NAME],
        data=tuple(text(digest)[:LONGEST_NAME] for digest in digests),
        role=text(config.get("role", ""))[:LONGEST_NAME],
    )


def _sound_moments(moments: dict[str, Tensor], counts: list[float]) -> dict[str, Tensor]:
    """`moments`, if they can be those of clients with so many examples. Raises ValueError."""
    if not moments:
        return moments
    if set(moments) != set(MOMENTS) or len({value.shape for value in moments.values()}) != 1:
        raise ValueError("the moments of a preflight report are incomplete or differ in shape")
    if moments["count"].dim() != 2 or len(moments["count"]) != len(counts):
        raise ValueError("the moments of a preflight report are not one row a client")
    values = torch.stack([moments[name].double() for name in MOMENTS])
    most = torch.tensor(counts, dtype=torch.float64).unsqueeze(1)
    number, mean, squares = values
    if not torch.isfinite(values).all() or (number < 0).any() or (number > most).any() or (squares < 0).any():
        raise ValueError("the moments of a preflight report are impossible")
    too_large = (mean.abs() > LARGEST_INPUT) | (squares > number * (2 * LARGEST_INPUT) ** 2)
    of_few = (number != number.floor()) | ((number < 2) & (squares > 0)) | ((number < 1) & (mean != 0))
    if (too_large | of_few).any():
        raise ValueError("the moments of a preflight report are impossible")
    return moments
