"""Messages out, replies in as they arrive."""

import time
from collections.abc import Iterable, Iterator

from flwr.app import Message
from flwr.serverapp import Grid

__all__ = ["exchange", "wait_for_supernodes"]

SHORTEST_POLL, LONGEST_POLL = 0.002, 0.25  # seconds
POLL_SHARE = 0.05  # of the time waited so far: polling adds at most 5 % to a wait, and stays rare in long ones


def exchange(grid: Grid, messages: Iterable[Message], timeout: float) -> Iterator[Message]:
    """Push `messages`, then yield each reply once, as it comes, until all are in or `timeout` seconds are over."""
    waiting = set(grid.push_messages(messages))
    start = time.monotonic()
    while waiting:
        for reply in grid.pull_messages(waiting):
            waiting.discard(reply.metadata.reply_to_message_id)
            yield reply
        waited = time.monotonic() - start
        if not waiting or waited >= timeout:
            return
        time.sleep(min(max(waited * POLL_SHARE, SHORTEST_POLL), LONGEST_POLL, timeout - waited))


def wait_for_supernodes(grid: Grid, minimum: int, timeout: float) -> list[int]:
    """Node ids once at least `minimum` SuperNodes are there, or those that came within `timeout` seconds."""
    start = time.monotonic()
    while True:
        nodes = sorted(grid.get_node_ids())
        waited = time.monotonic() - start
        if len(nodes) >= minimum or waited >= timeout:
            return nodes
        time.sleep(min(LONGEST_POLL, timeout - waited))
