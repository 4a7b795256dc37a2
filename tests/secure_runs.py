"""Runs under secure aggregation in this process: their overrides, what they leave behind, and whose stage is whose."""

import json
from pathlib import Path
from typing import Any

from flwr.app import Message

__all__ = ["QUICK", "SMALL", "lines", "rows", "stage", "summary"]

SMALL = (
    "federation.num_rounds=2 federation.num_clients=6 federation.fraction_train=1 model=logistic_regression"
    " partition=iid secure_aggregation=secaggplus"
)
QUICK = (
    " secure_aggregation.keys_timeout=0.1 secure_aggregation.shares_timeout=0.1 secure_aggregation.masked_timeout=0.1"
    " secure_aggregation.consistency_timeout=0.1 secure_aggregation.unmask_timeout=0.1 federation.exclude_after=null"
)


def summary(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "summary.json").read_text()))


def lines(directory: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / name).read_text().splitlines()]


def rows(directory: Path, server_round: int) -> dict[int, dict[str, Any]]:
    return {row["client"]: row for row in lines(directory, "clients.jsonl") if row["round"] == server_round}


def stage(message: Message) -> str:
    """The stage that a question or a reply of the protocol says it belongs to; nothing for other messages."""
    if message.has_error() or "secure" not in message.content.config_records:
        return ""
    return str(message.content.config_records["secure"]["stage"])
