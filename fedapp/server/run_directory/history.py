"""metrics.jsonl, clients.jsonl, arrivals.jsonl: lines that are only ever added, and cut back to a checkpoint on
resuming."""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedapp.common.errors import FederationError

__all__ = ["History", "plain"]

FILES = ("metrics.jsonl", "clients.jsonl", "arrivals.jsonl")


class History:
    """These files of a run directory.

    `position` says how much of each there is, with a digest: a checkpoint holds it, so that one of another run, or
    with other lines beside it, is found out.
    """

    def __init__(self, directory: Path, position: Mapping[str, Any] | None = None) -> None:
        """Begin, or go on from `position`: what was written after it goes. Raises FederationError as `check` does."""
        self._directory = directory
        kept = self.check(directory, position) if position is not None else dict.fromkeys(FILES, b"")
        self._digests = {name: hashlib.sha256(kept[name]) for name in FILES}
        self._sizes = {name: len(kept[name]) for name in FILES}
        for name in FILES:
            if (directory / name).exists():
                os.truncate(directory / name, len(kept[name]))

    @staticmethod
    def check(directory: Path, position: Mapping[str, Any]) -> dict[str, bytes]:
        """By file, the bytes up to `position`. Raises FederationError where they are not those it was made of."""
        kept = {}
        for name in FILES:
            size, digest = position[name]
            path = directory / name
            kept[name] = path.read_bytes()[:size] if path.exists() else b""
            if len(kept[name]) != size or hashlib.sha256(kept[name]).hexdigest() != digest:
                raise FederationError(f"the checkpoint does not belong to this run: {path} has other lines than it had")
        return kept

    def append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add a line for each row."""
        content = "".join(json.dumps(plain(row)) + "\n" for row in rows).encode()
        with (self._directory / name).open("ab") as file:
            file.write(content)
        self._digests[name].update(content)
        self._sizes[name] += len(content)

    def position(self) -> dict[str, list[int | str]]:
        """What is there, once it is on the disk: a checkpoint must not outlast the lines that it counts on."""
        for name in FILES:
            if (self._directory / name).exists():
                with (self._directory / name).open("rb") as file:
                    os.fsync(file.fileno())
        return {name: [self._sizes[name], self._digests[name].hexdigest()] for name in FILES}


def plain(value: Any) -> Any:
    """`value` as strict JSON has it: figures that are not finite become null."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
