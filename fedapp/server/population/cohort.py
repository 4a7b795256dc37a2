"""Who takes part in a round, and how much each counts: functions of config, round and the preflight's counts."""

import math
import random
from collections.abc import Collection, Iterable, Mapping
from heapq import heapreplace

__all__ = ["cohort_size", "cohort_weights", "sample_cohort", "spread"]


def cohort_size(num_clients: int, fraction: float, minimum: int) -> int:
    """How many of `num_clients` are asked: their share, but at least `minimum` and at most all."""
    # 0.07 * 100 is 7.000000000000001 in floating point and must not become 8.
    return min(num_clients, max(minimum, math.ceil(round(fraction * num_clients, 9))))


def sample_cohort(clients: Collection[int], size: int, *, seed: int, server_round: int) -> list[int]:
    """`size` clients, sorted: a uniform sample without replacement, fixed by (seed, round, the set of clients)."""
    # A string seeds Python's generator by SHA-512, alike on every platform and in every version.
    return sorted(random.Random(f"cohort/{seed}/{server_round}").sample(sorted(clients), size))


def cohort_weights(num_examples: Mapping[int, int], weighting: str, cap: float | None) -> dict[int, float]:
    """Each client's weight from its number of training examples, never above `cap`."""
    rule = {"num_examples": float, "uniform": lambda _: 1.0, "sqrt": math.sqrt}[weighting]
    return {client: min(rule(count), cap or math.inf) for client, count in num_examples.items()}


def spread(loads: Mapping[int, int], nodes: Iterable[int]) -> dict[int, int]:
    """A node for each client so that the nodes have about as much to do: the largest client first, each to the node
    that has least so far (Graham 1969). `loads`: training examples by client."""
    heap = [(0, node) for node in sorted(nodes)]
    found = {}
    for client in sorted(loads, key=lambda client: (-loads[client], client)):
        load, node = heap[0]
        found[client] = node
        heapreplace(heap, (load + loads[client], node))
    return found
