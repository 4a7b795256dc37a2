"""A file of JSON lines that grows, read as it does: new lines only, so that the last round costs what the first did."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["NewLines"]

TAIL = 256  # bytes before the place that was read to, by which a file is known again


class NewLines:
    """Its whole lines, each an object with a round. Cut back, as by a run that is resumed, it is read anew."""

    def __init__(self, path: Path) -> None:
        self._path, self._at, self._tail = path, 0, b""
        self.cut = False

    def restart(self) -> None:
        self._at, self._tail = 0, b""

    def new(self) -> Iterator[dict[str, Any]]:
        self.cut = False
        try:
            with self._path.open("rb") as file:
                file.seek(self._at - len(self._tail))
                if file.read(len(self._tail)) != self._tail:
                    self.cut = True
                    self.restart()
                file.seek(self._at)
                content = file.read()
        except OSError:
            return
        whole, newline, _ = content.rpartition(b"\n")
        self._at += len(whole) + len(newline)
        self._tail = (self._tail + whole + newline)[-TAIL:]
        for line in whole.split(b"\n") if whole else ():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and type(record.get("round")) is int:
                yield record
