"""Who the sites are, which of their rows are held out, and by what unit: the same for every arm and seed."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import torch
from torch import Tensor

from fedapp.common.errors import DataError
from fedapp.config import Config
from fedapp.data.shards import ClientData, Shards, Split
from fedapp.data.source import Examples, Pooled
from fedapp.data.whole_groups import group_rows
from fedapp.learning.build import Parts
from fedapp.learning.build_shards import build_shards
from fedapp.learning.task import Task

__all__ = ["Judged", "Sites", "sites_of"]

FEW = 20  # training rows


@dataclass(frozen=True)
class Judged:
    """Rows that models are judged on: a site's held-out rows, or the server's test data.

    `units`: positions in `examples` that are resampled together, such as all rows of a patient; `unit` says what they
    are. `rows_sha256`: of which rows of the data set these are.
    """

    name: str
    examples: Examples
    units: tuple[Tensor, ...]
    unit: str
    trained_on: int
    rows_sha256: str
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sites:
    """`train`: all training rows, in the order of the sites; `ends`: where each site's end. Held-out rows are in
    `judged` alone: no run ever has them."""

    train: Examples
    ends: tuple[int, ...]
    judged: tuple[Judged, ...]
    test: Judged | None

    def of(self, site: int) -> Examples:
        """One site's training rows."""
        return self.train.span(self.ends[site - 1] if site else 0, self.ends[site])

    def alone(self, site: int) -> Split:
        """One client, with one site's rows."""
        own = self.of(site)
        return own, [(0, len(own), len(own))]

    def pooled(self) -> Split:
        """One client, with all rows."""
        return self.train, [(0, len(self.train), len(self.train))]

    def federated(self) -> Split:
        """Each site as a client."""
        return self.train, [(start, end, end) for start, end in zip((0, *self.ends), self.ends, strict=False)]


def sites_of(config: Config, parts: Parts, test: Examples | None) -> Sites:
    """Load and split the data once. Raises FedappError as a run of `config` does, and where nothing is held out."""
    shards: Shards = build_shards(config, parts)
    split, rows = shards.loaded(), shards.rows()
    pooled = parts.source.pooled()
    names = _names(config, pooled, split, rows)
    judged = []
    for site, (start, middle, end) in enumerate(split[1]):
        data, own = shards.of(site), rows[middle:end]
        units, unit = _units(pooled.train.take(own))
        remarks = _remarks(parts.task, data)
        digest = sha256(own.numpy().tobytes()).hexdigest()
        judged.append(Judged(names[site], data.validation, units, unit, middle - start, digest, remarks))
    if not any(len(one.examples) for one in judged):
        raise DataError(
            f"train.val_fraction={config.train.val_fraction}: leaves no site a row to be judged on; give more data, or"
            " a larger share"
        )
    pool, spans = split
    train = pool.take(torch.cat([torch.arange(start, middle) for start, middle, _ in spans]))
    ends = itertools.accumulate(middle - start for start, middle, _ in spans)
    return Sites(train, tuple(ends), tuple(judged), _test(test))


def _test(test: Examples | None) -> Judged | None:
    if test is None or not len(test):
        return None
    units, unit = _units(test)
    plain = Examples(test.inputs, test.targets)
    return Judged("the server's test data", plain, units, unit, 0, plain.sha256())


def _names(config: Config, pooled: Pooled, split: Split, rows: Tensor) -> list[str]:
    """By site the value that the partition goes by, where all its rows have the same one; else its number."""
    column = pooled.columns.get(str(config.partition.get("partition_by")))
    named = []
    for number, (start, _, end) in enumerate(split[1]):
        found = {str(column[row]) for row in rows[start:end].tolist()} if column is not None else set()
        named.append(found.pop() if len(found) == 1 else f"site {number}")
    return named if len(set(named)) == len(named) else [f"site {number}" for number in range(len(named))]


def _units(examples: Examples) -> tuple[tuple[Tensor, ...], str]:
    """What no split separates: groups, else all rows of a time, else single rows."""
    if examples.groups is not None:
        return tuple(group_rows(examples)), "group"
    if examples.times is not None:
        _, codes = torch.unique(examples.times, return_inverse=True)
        by_time = tuple(group_rows(Examples(examples.inputs, examples.targets, codes)))
        return by_time, "time" if len(by_time) < len(examples) else "row"
    return tuple(torch.split(torch.arange(len(examples)), 1)) if len(examples) else (), "row"


def _remarks(task: Task, data: ClientData) -> tuple[str, ...]:
    """What a person must know of a site's rows."""
    said = []
    train, held_out = data.train, data.validation
    if len(train) < FEW:
        said.append(f"trains on {len(train)} row{'s' if len(train) != 1 else ''} only")
    if not len(held_out):
        said.append("is not judged: too few rows to hold one out")
    classes = task.schema.classes
    if classes and len(train) and len(present := torch.unique(train.targets)) < 2:
        said.append(f"trains on one class only, {classes[int(present[0])]!r}")
    if train.inputs.is_floating_point() and train.inputs.dim() == 2 and len(train):
        empty = _features(task, train.inputs.isnan().all(0))
        if empty:
            said.append(f"has no value of {', '.join(empty[:5])}{' ...' if len(empty) > 5 else ''}")
    return tuple(said)


def _features(task: Task, chosen: Tensor) -> Sequence[str]:
    return [task.schema.features[place] if task.schema.features else str(place) for place in chosen.nonzero().flatten()]
