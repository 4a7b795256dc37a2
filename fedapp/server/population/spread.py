"""Which SuperNode does which client's work, where any can do it."""

from collections.abc import Iterable, Mapping
from heapq import heapreplace

__all__ = ["spread"]


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
