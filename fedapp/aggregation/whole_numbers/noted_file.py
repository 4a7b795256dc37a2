"""What a site notes by model before it reveals anything of a sum: lines that are never changed and never evicted.

One line for each sum, on the disk before `append` returns. A full file refuses; a damaged one, too.
"""

import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError

__all__ = ["MOST_BYTES", "NotedFile", "NotedLines"]

log = logging.getLogger("flwr")

MOST_BYTES = 64 << 20  # some 30,000 rounds with a hundred survivors each


@dataclass(frozen=True)
class NotedLines:
    """An open file, which nobody else reads or writes meanwhile. Raises ProtocolError as `NotedFile` does."""

    file: BinaryIO
    most_bytes: int

    def of(self, model: str) -> Iterator[dict[str, Any]]:
        """What was noted of a model. A last line without its end was never acted upon, and goes."""
        self.file.seek(0)
        end = 0
        for line in self.file:
            if not line.endswith(b"\n"):
                self.file.truncate(end)
                return
            end += len(line)
            if not line.startswith(b'{"model": "') or not line.endswith(b"}\n"):
                raise ProtocolError("repetition", "the record of revealed sums is damaged")
            if line.startswith(b'{"model": "' + model.encode() + b'", '):
                try:
                    yield json.loads(line)
                except ValueError:
                    raise ProtocolError("repetition", "the record of revealed sums is damaged") from None

    def append(self, model: str, values: Mapping[str, Any]) -> None:
        """One more line of this model."""
        line = json.dumps({"model": model, **values}) + "\n"
        if self.file.seek(0, os.SEEK_END) + len(line) > self.most_bytes:
            raise ProtocolError("repetition", "this device's record of revealed sums is full (see its keep-path)")
        self.file.write(line.encode())
        self.file.flush()
        os.fsync(self.file.fileno())


@dataclass(frozen=True)
class NotedFile:
    """`name` in a device's own `folder`. Raises ProtocolError where it cannot be read or written."""

    folder: Path
    name: str
    most_bytes: int = MOST_BYTES

    @contextmanager
    def opened(self) -> Iterator[NotedLines]:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            number = os.open(self.folder / self.name, os.O_RDWR | os.O_CREAT, 0o600)
            with os.fdopen(number, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield NotedLines(file, self.most_bytes)
        except OSError as error:
            log.error("keep-path: %s: %s", self.folder / self.name, error)
            raise ProtocolError("repetition", "the record of revealed sums cannot be read or written") from None
