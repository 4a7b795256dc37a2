"""What the gateway waits for on behalf of SuperNodes, before a SuperLink that is made up. Its pauses take no time."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.message_pb2 import Message, PullObjectResponse
from gateways import Caller, SuperLink, gateway_before

from fedapp.deploy.long_polling import HOLD, HOLD_OBJECT, LONGEST_POLL, POLL_SHARE, SHORTEST_POLL
from fedapp.flower.fleet_calls import PULL_MESSAGES, PULL_OBJECT

CONTENT = b"x" * 1000


@dataclass
class Clock:
    """Goes on by nothing but the gateway's pauses."""

    now: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def superlink() -> SuperLink:
    return SuperLink()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The gateway's: a pause moves it on, and otherwise takes no time."""
    made, real = Clock(), asyncio.wait

    async def wait(waited: Iterable[Any], *, timeout: float | None = None, **options: Any) -> Any:
        if timeout is not None:
            made.pauses.append(timeout)
            made.now += timeout
            timeout = 0
        return await real(waited, timeout=timeout, **options)

    monkeypatch.setattr(asyncio, "wait", wait)
    return made


Call = Callable[..., bytes]


@pytest.fixture
def ask(superlink: SuperLink, clock: Clock, tmp_path: Path) -> Iterator[Call]:
    """A SuperNode's call, by TLS through a gateway; what it gets."""
    with gateway_before(superlink, tmp_path, clock) as front:

        def call(path: str, caller: Caller = front.site) -> bytes:
            front.admitted.add(caller.public)
            found = front.post(path, caller)
            assert found.status_code == 200
            return found.content

        yield call


def there_after(calls: int) -> Callable[[int], bytes]:
    def reply(number: int) -> bytes:
        available = number >= calls
        content = CONTENT if available else b""
        reply = PullObjectResponse(object_found=True, object_available=available, object_content=content)
        return reply.SerializeToString()

    return reply


def part(ask: Call) -> PullObjectResponse:
    return PullObjectResponse.FromString(ask(PULL_OBJECT))


def test_a_part_that_the_server_is_uploading_is_waited_for(superlink: SuperLink, ask: Call, clock: Clock) -> None:
    superlink.reply = there_after(3)
    assert part(ask).object_content == CONTENT
    assert superlink.calls == 4
    assert clock.pauses == 3 * [SHORTEST_POLL]


def test_what_is_there_or_unknown_is_passed_on_at_once(superlink: SuperLink, ask: Call, clock: Clock) -> None:
    superlink.reply = there_after(0)
    assert part(ask).object_content == CONTENT
    absent = PullObjectResponse(object_found=False, object_available=False)
    superlink.reply = lambda number: absent.SerializeToString()
    assert not part(ask).object_found
    short = PullObjectResponse(object_found=True, object_available=True, object_content=b"1")
    superlink.reply = lambda number: short.SerializeToString()
    assert part(ask).object_content == b"1"
    assert superlink.calls == 3
    assert not clock.pauses


def test_a_part_is_not_waited_for_without_end(superlink: SuperLink, ask: Call, clock: Clock) -> None:
    superlink.reply = there_after(10**9)
    found = part(ask)
    assert (found.object_found, found.object_available) == (True, False)
    assert HOLD_OBJECT <= clock.now < HOLD_OBJECT + 2 * SHORTEST_POLL
    assert superlink.calls == len(clock.pauses) > 2


def test_a_call_for_messages_is_held_until_there_is_one(superlink: SuperLink, ask: Call, clock: Clock) -> None:
    one = PullMessagesResponse(messages_list=[Message()])
    superlink.reply = lambda number: one.SerializeToString() if number == 40 else b""
    assert PullMessagesResponse.FromString(ask(PULL_MESSAGES)) == one
    assert superlink.calls == 41
    # Looks become rarer with the time since the last message, and are never late by more than their share of it.
    assert clock.pauses == sorted(clock.pauses)
    assert (clock.pauses[0], len(clock.pauses)) == (SHORTEST_POLL, 40)
    assert clock.pauses[-1] == pytest.approx(POLL_SHARE * (clock.now - clock.pauses[-1]))


def test_without_a_message_the_call_ends_before_its_supernode_gives_up(
    superlink: SuperLink, ask: Call, clock: Clock
) -> None:
    superlink.reply = lambda number: PullMessagesResponse().SerializeToString()
    assert not PullMessagesResponse.FromString(ask(PULL_MESSAGES)).messages_list
    assert HOLD <= clock.now < HOLD + LONGEST_POLL


def test_each_supernode_is_polled_for_at_its_own_pace(superlink: SuperLink, ask: Call, clock: Clock) -> None:
    """One that has waited long is looked for seldom; another, which has just come, often."""
    superlink.reply = lambda number: PullMessagesResponse().SerializeToString()
    idle, new = Caller(), Caller()
    ask(PULL_MESSAGES, idle)
    ask(PULL_MESSAGES, idle)
    assert clock.pauses[-1] > 10 * SHORTEST_POLL
    before = len(clock.pauses)
    ask(PULL_MESSAGES, new)
    assert clock.pauses[before] == SHORTEST_POLL
