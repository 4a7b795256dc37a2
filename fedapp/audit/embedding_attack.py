"""What the label party learns of the embeddings of single parties, out of their sums: attacks on vertical learning.

With masks it sees the sum over all parties without labels, of each held-out entity, at the end of every round. Where
entities repeat, as planes and hours of weather do over flights, these sums are linear equations in the embeddings.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedapp.config import Config
from fedapp.vertical.masking import decoded, encoded
from fedapp.vertical.pooled import PooledTraining
from fedapp.vertical.vertical_options import vertical_options

__all__ = ["EmbeddingAudit", "audit_embeddings", "explained", "recovered"]

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
PRECISION = 1e-9  # of the least squares, relative


@dataclass(frozen=True)
class EmbeddingAudit:
    """By party without labels: `found`, the share of the variance of its embeddings that the label party finds (1: all
    but for a constant, 0: no more than their mean), and `repeated`, how often one of its entities occurs on
    average among the `entities` that are held out. `metrics` of the model on these."""

    name: str
    entities: int
    found: dict[str, float]
    repeated: dict[str, float]
    metrics: dict[str, float]


def audit_embeddings(config: Config, name: str) -> EmbeddingAudit:
    """Train as the parties would, and attack as the label party, by what it is sent when it judges the model. Raises
    ConfigError for parties that cannot have the fusion."""
    options = vertical_options(config)
    others = [party for party in options.names if party != options.label_party]
    training = PooledTraining(config, options, options.names)
    training.train()
    metrics = training.judge()
    places = {party: training.test_rows[party].numpy() for party in others}
    sent: dict[str, Tensor] = {}
    for party in others:
        bottom = training.learners[party].bottom
        assert bottom is not None
        sent[party] = bottom.judge(training.test_rows[party]).detach()
    if options.fusion.masked:
        single = _from_sum(sent, places)
    else:
        single = {party: values.double().numpy() for party, values in sent.items()}
    found = {
        party: max(0.0, explained(single[party][there], sent[party].double().numpy()[there]))
        for party, rows in places.items()
        for there in [_first(rows)]
    }
    repeated = {party: float((rows >= 0).sum() / max(len(_first(rows)), 1)) for party, rows in places.items()}
    return EmbeddingAudit(name, len(training.test_targets), found, repeated, metrics)


def _from_sum(sent: dict[str, Tensor], places: dict[str, Rows]) -> dict[str, Floats]:
    """By party, what the label party makes of the sum of all, (n, width) as they are sent."""
    shape = tuple(next(iter(sent.values())).shape)
    total = np.zeros(int(np.prod(shape)), np.uint64)
    for values in sent.values():
        total += encoded(values).reshape(-1)
    numbered = {party: _numbered(rows) for party, rows in places.items()}
    found = recovered(decoded(total, shape).double().numpy(), *numbered.values())
    pairs = zip(numbered.items(), found, strict=True)
    return {party: np.where(rows[:, None] >= 0, values[rows], 0.0) for (party, rows), values in pairs}


def recovered(sums: Floats, *rows: Rows) -> tuple[Floats, ...]:
    """From sums (n, width) of one embedding of each party, which its `rows` (n,) name (-1: none of this party), all
    these embeddings, by party (entities, width). They are found but for constants that are added to one party's and
    taken from another's, where the sums connect all entities; by least squares. The first embedding of each party but
    the last is set to 0."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import lsqr

    counts = [int(own.max()) + 1 for own in rows]
    starts = np.concatenate([[0], np.cumsum(counts)])
    lines = [np.flatnonzero(own >= 0) for own in rows]
    columns = [own[own >= 0] + start for own, start in zip(rows, starts, strict=False)]
    places = np.concatenate(lines), np.concatenate(columns)
    system = csr_matrix((np.ones(len(places[0])), places), shape=(len(sums), int(starts[-1])))
    found = np.stack([lsqr(system, sums[:, at], atol=PRECISION, btol=PRECISION)[0] for at in range(sums.shape[1])], 1)
    parts = [found[start:end] for start, end in pairwise(starts)]
    shifts = [part[0] for part in parts[:-1]]
    moved = [part - shift for part, shift in zip(parts[:-1], shifts, strict=True)]
    return (*moved, parts[-1] + np.sum(shifts, axis=0))


def explained(found: Floats, true: Floats) -> float:
    """The share of the variance of `true` (n, width) that `found` has, but for a constant; 0 where there is none."""
    wanted = true - true.mean(0)
    missing = found - found.mean(0) - wanted
    whole = float(np.square(wanted).sum())
    return 1 - float(np.square(missing).sum()) / whole if whole else 0.0


def _first(rows: Rows) -> Rows:
    """The first place of each entity that there is."""
    entities, places = np.unique(rows, return_index=True)
    return places[entities >= 0]


def _numbered(rows: Rows) -> Rows:
    """The entities that occur, numbered from 0; -1 stays."""
    there = np.unique(rows[rows >= 0])
    return np.where(rows >= 0, np.searchsorted(there, rows), -1)
