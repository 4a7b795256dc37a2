"""Small runs whose clients are at work on different models, and what is read of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from array_values import values_of
from flwr.app import Array, Message

__all__ = ["BUFFERED", "SMALL", "VIRTUAL", "changed", "client_of", "late", "lines", "sha", "summary"]

SMALL = "federation.num_rounds=4 federation.num_clients=6 model=logistic_regression federation.final_evaluation=false"
BUFFERED = f"{SMALL} rounds=buffered rounds.concurrency=4 rounds.buffer_size=2"
VIRTUAL = f"{BUFFERED} federation.client_speed=lognormal"
TIMING = ("seconds", "time")


def summary(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "summary.json").read_text()))


def lines(directory: Path, name: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (directory / name).read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith(TIMING)} for row in rows]


def sha(directory: Path) -> str:
    return str(summary(directory)["model_sha256"])


def late(rest: int) -> Callable[[Message], float]:
    """Replies of every second client take so long that the others' come first."""
    return lambda reply: 0.4 if (client := client_of(reply)) is not None and client % 2 == rest else 0.0


def client_of(reply: Message) -> int | None:
    if reply.metadata.message_type != "train" or reply.has_error():
        return None
    return int(next(iter(reply.content.config_records["config"]["clients"])))  # type: ignore[arg-type]


def changed(reply: Message, value: float) -> Message:
    for record in reply.content.array_records.values():
        key = next(iter(record))
        array = values_of(record[key])
        array.flat[0] = value
        record[key] = Array(array)
    return reply
