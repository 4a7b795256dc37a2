"""A run directory that grows without a run."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

__all__ = ["HOSTILE", "Growing"]

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


class Growing:
    """A run directory, written as a run does."""

    def __init__(self, directory: Path, name: str = "trial", num_rounds: int = 4) -> None:
        directory.mkdir()
        self.directory = directory
        config = {"run": {"name": name}, "federation": {"num_rounds": num_rounds}}
        (directory / "config.yaml").write_text(yaml.safe_dump(config))

    def round(self, number: int, clients: list[dict[str, Any]] = [], **metrics: object) -> None:  # noqa: B006
        self.rounds({number: clients}, **metrics)

    def rounds(self, clients: Mapping[int, list[dict[str, Any]]], **metrics: object) -> None:
        """Rounds by number, each with the lines of its clients."""
        rows = [{"round": number, **client} for number, lines in clients.items() for client in lines]
        self._add("clients.jsonl", rows)
        self._add("metrics.jsonl", [self._line(number) | metrics for number in clients])

    def _line(self, number: int) -> dict[str, Any]:
        line = {"round": number, "time": time.time(), "seconds": 2.0, "bytes_up": 1024, "bytes_down": 2048}
        return line | {"cohort": 2, "replied": 1, "test_accuracy": 0.1 * (1 + number)}

    def end(self, status: str, reason: str) -> None:
        (self.directory / "summary.json").write_text(json.dumps({"status": status, "stop_reason": reason}))

    def _add(self, name: str, rows: list[dict[str, Any]]) -> None:
        with (self.directory / name).open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
