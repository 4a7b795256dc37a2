"""Messages out, replies in as they arrive, and what came too late."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice
from logging import WARNING

from flwr.app import Error, Message, MessageType
from flwr.serverapp import Grid

from fedapp.common.logger import log
from fedapp.flower.replies import Replies
from fedapp.flower.simulation import is_own, pause_for_reply
from fedapp.flower.uploads import Uploads
from fedapp.server.background_pulls import BackgroundPulls
from fedapp.server.reply_sizes import checked, largest_reply, largest_report, without_content
from fedapp.wire.differences import bytes_if_whole
from fedapp.wire.records import tensor_bytes

__all__ = ["Exchange", "Late"]

SHORTEST_POLL, LONGEST_POLL = 0.002, 0.25  # seconds
SHORTEST_LOOK = 0.05  # seconds, of replies that are fetched in the background
POLL_SHARE = 0.05  # of the time waited so far: polling adds at most 5 % to a wait, and stays rare in long ones
LARGEST_PULL = 1 << 28  # bytes of replies taken from the SuperLink at a time: memory stays bounded in large cohorts
NOT_SENT = Error(1, "the SuperLink did not take the message; is it too large?")


@dataclass(frozen=True)
class Late:
    """A reply that nobody waits for any more. `overdue`: it did not come in time; else the round had no need of it.

    Of all but the answer to a query (`preflight`) only the size is kept: updates must not pile up in memory.
    """

    node: int
    group: str
    overdue: bool
    tensor_bytes: int
    preflight: Message | None = None


@dataclass
class _Pending:
    """A message without a reply: to whom and about what, until when one can come, how large it is likely to be, and how
    large it may be."""

    stub: Message
    stale: float
    reply_bytes: int
    largest: int
    overdue: bool = False


class Exchange:
    """All messages of a run's server to its SuperNodes.

    Whoever reads replies may stop before all are in: a message without a reply stays pending until its time to live
    is over, and its SuperNode busy.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._uploads = Uploads(grid)
        self._replies = Replies(grid)
        self._largest_report = largest_report(1, 0)
        self.payload_bytes = 0  # that any reply may hold more: what parties send each other through the server
        self._pending: dict[str, _Pending] = {}  # by message id
        self._awaited: dict[str, float] = {}  # of them, those that `begin` has sent, and how long each may take
        self._background = None if is_own(grid) else BackgroundPulls(grid, self._uploads)
        self._unsent, self._failed = count(), dict[str, Message]()  # ids and replies of what could not be sent

    def __call__(
        self, messages: Iterable[Message], timeout: float, again: Callable[[Message], Message | None] = lambda _: None
    ) -> Iterator[Message]:
        """Push `messages`, then yield each reply once, as it comes, until all are in or `timeout` seconds are over.
        `again` may give a message to send in answer to a reply, whose own reply comes in that one's place."""
        unsent, waiting = self._push(list(messages))
        yield from unsent
        start = time.monotonic()
        self._uploads.until = start + timeout
        while waiting:
            for number, reply in self._pull(waiting):
                waiting.discard(number)
                if (more := again(reply)) is None:
                    yield reply
                else:
                    unsent, sent = self._push([more])
                    waiting |= sent
                    yield from unsent
            waited = time.monotonic() - start
            if not waiting:
                return
            if waited >= timeout:
                for number in waiting & self._pending.keys():
                    self._pending[number].overdue = True
                return
            self._pause(waited, timeout - waited)

    def _pause(self, waited: float, left: float) -> None:
        """Until a reply may be there, `left` seconds at most."""
        if not pause_for_reply(self.grid, min(LONGEST_POLL, left)):
            time.sleep(min(max(waited * POLL_SHARE, SHORTEST_POLL), LONGEST_POLL, left))

    # --- one by one, for who waits for no cohort ------------------------------------------------------------------

    def begin(self, message: Message, timeout: float) -> str:
        """Push one message, to whose reply `arrived` leads; its id. Where it cannot be sent, that reply is an error.
        `timeout`: seconds that the reply may take, its upload included."""
        unsent, sent = self._push([message])
        for reply in unsent:
            sent.add(number := f"unsent-{next(self._unsent)}")
            self._failed[number] = reply
        (number,) = sent
        self._awaited[number] = time.monotonic() + timeout
        return number

    def arrived(self, seconds: float) -> Iterator[tuple[str, Message]]:
        """Replies to messages that `begin` has sent, each with that message's id: those that are there, or come within
        `seconds`. A second reply to one comes with the first."""
        start = time.monotonic()
        while True:
            failed, self._failed = self._failed, {}
            found = [*failed.items(), *self._look(seconds - (time.monotonic() - start))]
            for number, reply in found:
                self._awaited.pop(number, None)
                yield number, reply
            waited = time.monotonic() - start
            if found or waited >= seconds:
                return
            if self._background is None:
                self._pause(waited, seconds - waited)

    def _look(self, seconds: float) -> list[tuple[str, Message]]:
        """Replies to awaited messages that are there; of devices, those that come within some time."""
        waiting = self._awaited.keys() & self._pending.keys()
        if self._background is None:
            return list(self._pull(waiting))
        self._replies.largest = max((self._pending[number].largest for number in waiting), default=0)
        self._background.look(waiting, self._awaited)
        return list(self._taken(self._background.found(min(seconds, SHORTEST_LOOK)), self._pending))

    def close(self) -> None:
        """No reply is waited for any more, nor the rest of one."""
        self._replies.closed = True

    def give_up(self, number: str) -> None:
        """Wait no more for the reply to this message: `late` gives it, if it comes."""
        self._awaited.pop(number, None)
        if number in self._pending:
            self._pending[number].overdue = True

    def owes(self, number: str) -> bool:
        """Whether the reply to this message may still come."""
        return number in self._pending and self._pending[number].stale > time.monotonic()

    def expect_reports(self, clients: int, features: int) -> None:
        """Preflight reports are about so many clients at most, with the moments of so many features."""
        self._largest_report = largest_report(clients, features)

    def post(self, messages: Iterable[Message]) -> None:
        """Push `messages` and wait for nothing: `late` gives their replies."""
        self._push(list(messages))

    def late(self) -> Iterator[Late]:
        """Replies that have come in since nobody waited for them any more."""
        now = time.monotonic()
        self._pending = {number: pending for number, pending in self._pending.items() if pending.stale > now}
        overdue = {number: pending.overdue for number, pending in self._pending.items()}
        for number, reply in self._pull(self._pending.keys() - self._awaited):
            size = tensor_bytes(reply.content) if reply.has_content() else 0
            about = reply.metadata
            preflight = reply if about.message_type == MessageType.QUERY else None
            yield Late(about.src_node_id, about.group_id, overdue[number], size, preflight)

    def busy(self) -> set[int]:
        """SuperNodes that may still be at work on something they were asked to do."""
        now = time.monotonic()
        pending = [pending.stub.metadata for pending in self._pending.values() if pending.stale > now]
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
                continue
            sent.add(number)
            stub, stale = without_content(message), now + message.metadata.ttl
            query = message.metadata.message_type == MessageType.QUERY
            largest = self._largest_report if query else largest_reply(message.content)
            # A sum of updates has eight bytes a value, the model that goes out mostly four.
            self._pending[number] = _Pending(
                stub, stale, 2 * bytes_if_whole(message.content), largest + self.payload_bytes
            )
        return unsent, sent

    def _pull(self, ids: set[str]) -> Iterator[tuple[str, Message]]:
        """Replies that are there, each with the id of the message that it answers; not too many in memory at once."""
        likely = max((self._pending[number].reply_bytes for number in ids & self._pending.keys()), default=0)
        left = iter(sorted(ids))
        while chunk := list(islice(left, max(1, LARGEST_PULL // max(1, likely)))):
            asked = {number: self._pending[number] for number in chunk if number in self._pending}
            self._replies.largest = max((pending.largest for pending in asked.values()), default=0)
            yield from self._taken(self.grid.pull_messages(chunk), asked)

    def _taken(self, replies: Iterable[Message], asked: Mapping[str, _Pending]) -> Iterator[tuple[str, Message]]:
        """Each with the id of the message that it answers, which is no longer pending."""
        asked = dict(asked)
        for reply in replies:
            number = reply.metadata.reply_to_message_id
            if number not in asked:
                log(WARNING, "a reply to no message is dropped")
                continue
            self._pending.pop(number, None)
            yield number, checked(reply, asked[number].stub, asked[number].largest)
