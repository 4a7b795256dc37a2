"""What clients write stays with them: no file of a run, no message and no log line has it, or who wrote it."""

import json
import logging
import random
from pathlib import Path

import pytest
from flwr.app import ArrayRecord, Message
from in_process import InProcessGrid, run_on

pytestmark = pytest.mark.slow

# An unknown word, a number, a name, and a line of known words in an order that nothing else has.
MARKS = ("zqxmarker", "4929117", "annabeltown", "river teacher window seven garden")
MODEL = "model=lstm model.embedding=8 model.hidden=12 data.window=8 data.vocabulary_size=3000"


def written(path: Path, users: int) -> None:
    words = ["the", "house", "was", "by", "the", "river", "and", "we", "saw", "the", "old", "road", "from", "there"]
    draws = random.Random(0)
    with path.open("w") as file:
        for user in range(users):
            lines = [" ".join(draws.choices(words, k=6)) for _ in range(10)]
            lines += [f"the {MARKS[0]} of {MARKS[1]} is {MARKS[2]}", MARKS[3]]
            for line in lines:
                file.write(json.dumps({"user": f"{MARKS[2]} {user}", "text": line}) + "\n")


def content_of(message: Message) -> bytes:
    parts = [repr(message.metadata).encode()]
    for name, record in message.content.items() if message.has_content() else ():
        parts.append(str(name).encode())
        if isinstance(record, ArrayRecord):
            parts += [key.encode() + bytes(array.data) for key, array in record.items()]
        else:
            parts.append(repr(dict(record)).encode())
    return b"\0".join(parts)


@pytest.mark.parametrize("more", ["", "privacy=dp_sgd train.val_fraction=0 federation.final_evaluation=false"])
@pytest.mark.parametrize("place", ["simulation", "devices"])
def test_no_text_is_in_files_messages_or_logs(
    place: str, more: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    data = tmp_path / "texts"
    data.mkdir()
    overrides = f"data=text {MODEL} federation.num_rounds=2 federation.num_clients=3 federation.fraction_train=1 {more}"
    configs = None
    if place == "simulation":
        written(data / "all.jsonl", 3)
        overrides += f" data.path={data / 'all.jsonl'} partition=natural partition.partition_by=user"
    else:
        configs = []
        for site in range(3):
            written(data / f"{site}.jsonl", 1)
            configs.append({"data-path": str(data / f"{site}.jsonl"), "partition-id": site})
            configs[-1] |= {"ledger-path": str(tmp_path / f"ledger-{site}.jsonl")} if more else {}
        overrides += " partition=iid"
    directory = tmp_path / "run"
    grid = InProcessGrid(overrides, 3, node_configs=configs)
    run_on(grid, directory, f"{overrides} run.output_dir={directory}", report=True)
    assert json.loads((directory / "summary.json").read_text())["status"] == "finished"
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert {"model.safetensors", "report.html", "metrics.jsonl", "clients.jsonl"} <= {path.name for path in files}
    seen = {str(path): path.read_bytes() for path in files}
    seen |= {f"message {number}": content_of(message) for number, message in enumerate([*grid.sent, *grid.received])}
    seen["log"] = caplog.text.encode()
    assert len(grid.received) >= 6
    for mark in MARKS:
        assert [name for name, content in seen.items() if mark.encode() in content.lower()] == [], mark


def test_the_marks_would_be_found(tmp_path: Path) -> None:
    """In what a client would send if it sent its text."""
    from flwr.app import ConfigRecord, RecordDict

    message = Message(
        RecordDict({"config": ConfigRecord({"said": f"x {MARKS[0]} y"})}), dst_node_id=1, message_type="train"
    )
    assert MARKS[0].encode() in content_of(message)
