"""What the server takes of a reply on devices: no more than it may have, and nothing that is no message."""

import inspect
from collections.abc import Callable

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import http_grid
from flwr.superlink.grid.http_grid import HttpGrid

from fedapp.flower.replies import INFLATE, PARAMETERS, PULL, Replies
from fedapp.flower.uploads import Uploads


@pytest.fixture
def replies(monkeypatch: pytest.MonkeyPatch) -> Replies:
    """Of the grid of a deployment, which is not connected. Afterwards Flower's functions are as they were."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    for name in (PULL, INFLATE):
        monkeypatch.setattr(http_grid, name, inspect.unwrap(getattr(http_grid, name)))
    grid = HttpGrid("127.0.0.1:1", insecure=True, token="none")
    Uploads(grid).until = 0.0
    return Replies(grid)


def parts_of(message: Message) -> dict[str, bytes]:
    """As a SuperNode uploads them: the message itself last."""
    return {name: part.deflate() for name, part in get_all_nested_objects(message).items()}


def reply(**entries: str) -> dict[str, bytes]:
    return parts_of(Message(RecordDict({"config": ConfigRecord({**entries})}), 7, "train"))


def test_flowers_grid_makes_messages_by_the_functions_that_are_bounded() -> None:
    assert inspect.signature(inspect.unwrap(http_grid.pull_objects)).parameters.keys() >= PARAMETERS
    assert {PULL, INFLATE} <= set(HttpGrid.pull_messages.__code__.co_names)


def test_a_reply_comes_as_flower_makes_it(replies: Replies) -> None:
    for text in ("a", "b"):
        parts = reply(a=text)
        found = http_grid.pull_objects(object_ids=list(parts), pull_object_fn=parts.__getitem__)
        made = http_grid.inflate_object_from_contents(list(parts)[-1], found)
        assert isinstance(made, Message)
        assert made.content["config"]["a"] == text


def test_no_more_is_taken_than_a_reply_may_have(replies: Replies) -> None:
    parts = reply(a="x" * 10_000)
    size = sum(map(len, parts.values()))
    for largest, taken in ((size, True), (size - 1, False)):
        replies.largest = largest
        try:
            http_grid.pull_objects(object_ids=list(parts), pull_object_fn=parts.__getitem__)
        except ObjectPullError as error:
            assert f"larger than {largest} bytes" in str(error)  # noqa: PT017
            assert not taken
        else:
            assert taken


def test_endless_parts_are_not_all_fetched(replies: Replies) -> None:
    """However many a SuperNode announces, each of a megabyte."""
    asked: list[str] = []

    def fetch(name: str) -> bytes:
        asked.append(name)
        return bytes(1 << 20)

    replies.largest = 5 << 20
    with pytest.raises(ObjectPullError):
        http_grid.pull_objects(object_ids=[str(i) for i in range(1000)], pull_object_fn=fetch)
    assert len(asked) < 20


MALFORMED: dict[str, Callable[[dict[str, bytes]], dict[str, bytes]]] = {
    "no message but a record": lambda parts: {k: v for k, v in parts.items() if v.startswith(b"ConfigRecord")},
    "a part is missing": lambda parts: {list(parts)[-1]: parts[list(parts)[-1]]},
    "noise": lambda parts: dict.fromkeys(parts, b"\xff" * 50),
    "empty": lambda parts: dict.fromkeys(parts, b""),
    "a part that is not what its head says": lambda parts: {k: v[:-2] + b"\xff\xff" for k, v in parts.items()},
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_what_is_no_message_costs_its_sender_alone(replies: Replies, kind: str) -> None:
    """Flower's grid turns this error, and no other, into an error reply; any other ends the run."""
    parts = MALFORMED[kind](reply(a="b"))
    assert parts
    with pytest.raises(ObjectPullError, match="it is no message"):
        http_grid.pull_objects(object_ids=list(parts), pull_object_fn=parts.__getitem__)


def test_without_the_functions_replies_are_taken_whole(
    monkeypatch: pytest.MonkeyPatch, warned: Callable[[], list[str]]
) -> None:
    monkeypatch.delattr(http_grid, INFLATE)
    Replies(HttpGrid("127.0.0.1:1", insecure=True, token="none"))
    assert len(warned()) == 1
