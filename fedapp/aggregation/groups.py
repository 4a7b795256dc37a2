"""Which clients of a run are asked together or not at all."""

from collections.abc import Callable, Collection

__all__ = ["Groups", "alone"]

Groups = Callable[[Collection[int]], list[tuple[int, ...]]]
"""Of these clients, the groups that are complete, all of one size, in order. Who is in none is never asked."""


def alone(clients: Collection[int]) -> list[tuple[int, ...]]:
    """Each client is a group of its own."""
    return [(client,) for client in sorted(clients)]
