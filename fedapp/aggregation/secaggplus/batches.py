"""Fixed batches of clients that take part all or none, so that no difference of sums tells of less than a batch.

Secure aggregation hides a client in one sum. Over many rounds with other cohorts a server solves sums of almost the
same model for single clients. In Multi-RoundSecAgg (So et al. 2023, "Securing Secure Aggregation: Mitigating
Multi-Round Privacy Leakage in Federated Learning", section 4) clients are in fixed batches of T, and a sum holds each
batch completely or not at all. All of a batch then have the same coefficient in any linear combination of sums,
whatever the rounds and dropouts, so that it tells of T clients at least, or of none.

Client c is in batch c // T, whatever the seed and whoever else is there: every client can check it by itself, and it is
the same in every run, since whoever starts runs chooses their seeds. Clients of a batch whose numbers are not all there
take no part.

A client that drops out takes its batch along. Before anybody trains, the batch is just not asked further. Later the
server keeps the masked vectors of a batch apart until it is complete; one that stays incomplete is treated as dropped:
its masks are taken away and its own masks never revealed, so that nothing is learnt of it. That costs the updates of up
to T - 1 clients who did nothing wrong (and what they spent of their privacy), and they reveal no shares: the more
dropouts, the sooner fewer than `threshold` are left. Who drops out after its vector is in the sum costs nothing.
"""

from collections import defaultdict
from collections.abc import Collection
from typing import Any

from numpy.typing import NDArray

from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError

__all__ = ["WHOLE", "BatchSums", "complete_batches", "in_complete", "missing", "parts"]

WHOLE = -1  # in place of a batch's number: the sum over complete ones


def complete_batches(clients: Collection[int], size: int) -> list[tuple[int, ...]]:
    """The batches of `size` that are complete among `clients`, in order."""
    found: dict[int, list[int]] = defaultdict(list)
    for client in sorted(set(clients)):
        found[client // size].append(client)
    return [tuple(batch) for _, batch in sorted(found.items()) if len(batch) == size]


def in_complete(clients: Collection[int], size: int) -> set[int]:
    """Those of `clients` whose batch is complete among them."""
    return {client for batch in complete_batches(clients, size) for client in batch}


def missing(clients: Collection[int], size: int) -> list[int]:
    """Who lacks, for every batch of which there is a part among `clients` to be complete."""
    return sorted({c // size * size + place for c in clients for place in range(size)} - set(clients))


def parts(clients: Collection[int], size: int) -> dict[int, list[int]]:
    """The sums that are made of these clients' vectors: one of all complete batches, one of each incomplete one."""
    found: dict[int, list[int]] = {}
    whole = in_complete(clients, size)
    for client in sorted(clients):
        found.setdefault(WHOLE if client in whole else client // size, []).append(client)
    return found


class BatchSums:
    """Sums of vectors, modulo what their type holds: of all complete batches together, and of each incomplete one, by
    its number. Memory is that of one vector, and of one for each batch of which only a part has come."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.vectors: dict[int, NDArray[Any]] = {}
        self._clients: dict[int, set[int]] = {}

    @property
    def complete(self) -> set[int]:
        """The clients whose batches are complete."""
        return self._clients.get(WHOLE, set())

    def add(self, clients: Collection[int], vector: NDArray[Any]) -> None:
        """Add the sum of these clients' vectors. Raises ProtocolError for parts of several batches in one."""
        if len(found := parts(clients, self._size)) != 1:
            raise ProtocolError("forged", "a masked vector of parts of several batches")
        (part,) = found
        if part in self.vectors:
            self.vectors[part] += vector
        else:
            self.vectors[part] = vector.copy()
        of = self._clients.setdefault(part, set())
        of |= set(clients)
        if part != WHOLE and len(of) == self._size:
            self.add(self._clients.pop(part), self.vectors.pop(part))
