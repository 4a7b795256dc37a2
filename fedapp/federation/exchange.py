"""Messages out, replies in as they arrive, and what came too late."""

import time
from collections.abc import Iterable, Iterator
from itertools import islice

from flwr.app import Error, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedapp.wire.records import tensor_bytes

__all__ = ["Exchange", "wait_for_supernodes"]

SHORTEST_POLL, LONGEST_POLL = 0.002, 0.25  # seconds
POLL_SHARE = 0.05  # of the time waited so far: polling adds at most 5 % to a wait, and stays rare in long ones
LARGEST_PULL = 1 << 28  # bytes of tensors taken from the SuperLink at a time: memory stays bounded in large cohorts
NOT_SENT = Error(1, "the SuperLink did not take the message; is it too large?")


class Exchange:
    """All messages of a run's server to its SuperNodes.

    Whoever reads replies may stop before all are in: a message without a reply stays `pending` until its time to live
    is over, and its SuperNode busy.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._pending: dict[str, tuple[Message, float]] = {}  # by message id: what was asked, and when it goes stale

    def __call__(self, messages: Iterable[Message], timeout: float) -> Iterator[Message]:
        """Push `messages`, then yield each reply once, as it comes, until all are in or `timeout` seconds are over."""
        asked = list(messages)
        size = max((tensor_bytes(message.content) for message in asked), default=0)
        unsent, waiting = self._push(asked)
        yield from unsent
        start = time.monotonic()
        while waiting:
            for chunk in _chunks(sorted(waiting), max(1, LARGEST_PULL // max(1, size))):
                for number, reply in self._pull(chunk):
                    waiting.discard(number)
                    yield reply
            waited = time.monotonic() - start
            if not waiting or waited >= timeout:
                return
            time.sleep(min(max(waited * POLL_SHARE, SHORTEST_POLL), LONGEST_POLL, timeout - waited))

    def post(self, messages: Iterable[Message]) -> None:
        """Push `messages` and wait for nothing: `late` gives their replies."""
        self._push(list(messages))

    def late(self) -> list[Message]:
        """Replies that have come in since nobody waited for them any more."""
        now = time.monotonic()
        self._pending = {key: value for key, value in self._pending.items() if value[1] > now}
        return [reply for _, reply in self._pull(sorted(self._pending))] if self._pending else []

    def busy(self) -> set[int]:
        """SuperNodes that may still be at work on something they were asked to do."""
        now = time.monotonic()
        pending = [message.metadata for message, stale in self._pending.values() if stale > now]
        return {about.dst_node_id for about in pending if about.message_type != MessageType.QUERY}

    def _push(self, messages: list[Message]) -> tuple[list[Message], set[str]]:
        """Error replies for messages that could not be sent, and the ids of those that were."""
        # Flower gives no ids at all when the whole push was too large, and None for a message that was.
        ids = list(self.grid.push_messages(messages)) or [""] * len(messages)
        now = time.monotonic()
        unsent: list[Message] = []
        sent: set[str] = set()
        for number, message in zip(ids, messages, strict=True):
            if not number:
                unsent.append(Message(NOT_SENT, reply_to=message))
            else:
                sent.add(number)
                self._pending[number] = (_without_content(message), now + message.metadata.ttl)
        return unsent, sent

    def _pull(self, ids: list[str]) -> list[tuple[str, Message]]:
        """Replies that are there, each with the id of the message that it answers."""
        replies = []
        for reply in self.grid.pull_messages(ids):
            number = reply.metadata.reply_to_message_id
            asked, _ = self._pending.pop(number, (None, 0.0))
            if asked is not None and reply.has_error():
                # The SuperLink's own errors, such as for a SuperNode that has gone, bear the server's node id.
                reply = Message(reply.error, reply_to=asked)
            replies.append((number, reply))
        return replies


def _without_content(message: Message) -> Message:
    """To whom and about what: old models must not stay in memory for as long as somebody owes a reply."""
    about = message.metadata
    return Message(RecordDict(), about.dst_node_id, about.message_type, ttl=about.ttl, group_id=about.group_id)


def _chunks(ids: list[str], size: int) -> Iterator[list[str]]:
    items = iter(ids)
    while chunk := list(islice(items, size)):
        yield chunk


def wait_for_supernodes(grid: Grid, minimum: int, timeout: float) -> list[int]:
    """Node ids once at least `minimum` SuperNodes are there, or those that came within `timeout` seconds."""
    start = time.monotonic()
    while True:
        nodes = sorted(grid.get_node_ids())
        waited = time.monotonic() - start
        if len(nodes) >= minimum or waited >= timeout:
            return nodes
        time.sleep(min(LONGEST_POLL, timeout - waited))
