"""One hostile client: whatever it sends, the others' model is the one that they have without it.

It has a site's key, so it may reply whatever it likes to whatever it is asked. What it may decide is the preflight's
count and moments, within bounds, and an update within range, which nothing tells from an honest one.
"""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from hostile import copy_of, mutated
from in_process import InProcessGrid, run_on

from fedapp.server.exchange import Exchange
from fedapp.server.reply_sizes import OF_A_MESSAGE

HOSTILE, CLIENT = 102, 2
ROWS = "".join(f"{30 + i},{'fm'[i % 2]},{['no', 'yes'][i % 3 == 0]}\n" for i in range(40))
BASE = (
    "data=csv data.label=ill data.numeric=[age] data.categorical={sex:[f,m]} data.classes=[no,yes]"
    " model=logistic_regression federation.fraction_train=1 federation.min_clients=1 federation.exclude_after=null"
    " federation.min_supernodes=3 federation.round_timeout=0.4 federation.wait_timeout=0.1"
)
Tampered = Message | list[Message] | None


def devices(place: Path) -> list[dict[str, Any]]:
    (place / "data.csv").write_text("age,sex,ill\n" + ROWS)
    return [{"data-path": str(place / "data.csv"), "partition-id": i} for i in range(3)]


def run(place: Path, name: str, rounds: int, tamper: Callable[[Message], Tampered]) -> Path:
    def only_its_own(reply: Message) -> Tampered:
        return tamper(reply) if reply.metadata.src_node_id == HOSTILE and reply.has_content() else reply

    line = f"{BASE} federation.num_rounds={rounds}"
    return run_on(InProcessGrid(line, node_configs=devices(place), tamper=only_its_own), place / name, line)


def found_in(directory: Path) -> tuple[str, dict[int, str | None]]:
    """The model's SHA-256; and by round, why the hostile client was rejected, None where it was not."""
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["status"] == "finished"
    rows = [json.loads(line) for line in (directory / "clients.jsonl").read_text().splitlines()]
    assert not [row for row in rows if row["client"] in (0, 1) and row["rejected"]]
    mine = {row["round"]: row["rejected"] for row in rows if row["client"] == CLIENT and "phase" not in row}
    return summary["model_sha256"], mine


def with_content(reply: Message, content: RecordDict) -> Message:
    reply.content = content
    return reply


def as_another(reply: Message, name: str, value: Any) -> Message:
    """A copy that says so of itself."""
    made = Message(copy_of(reply.content), reply_to=reply)
    made.metadata.__dict__.update({**reply.metadata.__dict__, name: value})
    return made


def added(content: RecordDict, record: str, **entries: Any) -> RecordDict:
    content[record].update(entries)
    return content


def swollen(reply: Message) -> Message:
    """Larger than any reply may be."""
    content = copy_of(reply.content)
    content["arrays-2"] = ArrayRecord({"w": Array("float32", (1,), "numpy.ndarray", bytes(OF_A_MESSAGE * 2))})
    return with_content(reply, content)


# By round, in which each is asked, what it does with its honest reply.
TRICKS: list[Callable[[Message], Tampered]] = [
    lambda reply: [reply, reply],
    lambda reply: [reply, as_another(reply, "_src_node_id", 100)],
    lambda reply: as_another(reply, "_src_node_id", 100),
    lambda reply: as_another(reply, "_group_id", "999999"),
    lambda reply: as_another(reply, "_message_type", "query"),
    swollen,
    lambda reply: with_content(reply, added(copy_of(reply.content), "config", rejected=["x" * 10**6])),
    lambda reply: with_content(reply, added(copy_of(reply.content), "config", clients=[0])),
    lambda reply: with_content(reply, added(copy_of(reply.content), "config", clients=[2] * 10**4)),
    lambda reply: with_content(reply, added(copy_of(reply.content), "metrics", **{"val-examples": [2.0**53]})),
    lambda reply: with_content(reply, added(copy_of(reply.content), "metrics", **{"num-examples": [1e12]})),
    lambda reply: with_content(reply, RecordDict()),
    # What never comes, or cannot be told whose it is, is waited for; it is not asked again meanwhile.
    lambda reply: as_another(reply, "_reply_to_message_id", "no such message"),
]


def compared(
    place: Path, rounds: int, trick: Callable[[int, Message], Tampered], report: Callable[[Message], Tampered]
) -> None:
    """A run with `trick`, by round, and one in which the client is silent where it was rejected, and honest but for its
    update where it was not: they give the same model, bit for bit. `report`: its preflight report, in both."""
    sent: dict[str, list[tuple[str, ArrayRecord]]] = {}

    def hostile(reply: Message) -> Tampered:
        if reply.metadata.message_type != "train":
            return report(reply) if reply.metadata.message_type == "query" else trick(0, reply)
        group = reply.metadata.group_id
        given = trick(int(group), reply)
        first = given[0] if isinstance(given, list) else given
        sent[group] = list(first.content.array_records.items()) if first is not None and first.has_content() else []
        return given

    model, rejected = found_in(run(place, "hostile", rounds, hostile))

    def quiet(reply: Message) -> Tampered:
        if reply.metadata.message_type != "train":
            return report(reply) if reply.metadata.message_type == "query" else reply
        group = reply.metadata.group_id
        if rejected.get(int(group)) is not None or group not in sent:
            return with_content(reply, RecordDict())
        for name, arrays in sent[group]:
            reply.content[name] = arrays
        return reply

    expected, silent = found_in(run(place, "quiet", rounds, quiet))
    assert model == expected
    assert {number for number, why in silent.items() if why is None} == {
        number for number, why in rejected.items() if why is None
    }


@pytest.mark.slow
def test_no_trick_changes_the_others_model(tmp_path: Path) -> None:
    compared(tmp_path, len(TRICKS), lambda number, reply: TRICKS[number - 1](reply), lambda reply: reply)


def test_a_reply_bears_the_name_of_the_supernode_that_was_asked() -> None:
    """Else one that comes first would stand for another's."""
    grid = InProcessGrid("federation.num_clients=3", 3, tamper=lambda reply: as_another(reply, "_src_node_id", 100))
    (reply,) = Exchange(grid)([Message(RecordDict(), HOSTILE, "query", ttl=60)], 30)
    assert reply.metadata.src_node_id == HOSTILE
    assert "another SuperNode" in reply.error.reason


def test_too_large_a_reply_is_named(tmp_path: Path) -> None:
    _, rejected = found_in(run(tmp_path, "run", 1, lambda r: swollen(r) if r.metadata.message_type == "train" else r))
    assert "and may have" in str(rejected[1])


def test_who_never_replies_changes_nothing(tmp_path: Path) -> None:
    compared(tmp_path, 3, lambda number, reply: None, lambda reply: reply)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_no_fuzzed_reply_changes_the_others_model(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    compared(tmp_path, 25, lambda _, reply: with_content(reply, mutated(random, reply.content)), lambda reply: reply)


@pytest.mark.parametrize("seed", range(12))
def test_no_fuzzed_preflight_report_ends_or_decides_the_run(tmp_path: Path, seed: int) -> None:
    """Within range its count and its moments weigh, as docs/security.md says; the rest of it weighs nothing."""

    def report(reply: Message) -> Message:
        return with_content(reply, mutated(Random(seed), reply.content))

    compared(tmp_path, 1, lambda _, reply: with_content(reply, RecordDict()), report)
