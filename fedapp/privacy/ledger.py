"""The ledger: what a client has spent of its privacy, over all rounds and runs.

Lines are only ever added, each bound to those before it by a hash. A line is on the disk before the training that it
pays for begins, so a crash can overstate but never understate what was spent. A file beside it holds the number of
lines and the last hash, so that a ledger that was lost, cut or put back from an old copy is noticed. A device writes a
second one into another folder, for the day when a whole folder is lost or a disk is not mounted.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

from flwr.app import ConfigRecord, RecordDict

from fedapp.common.errors import FederationError
from fedapp.common.files import sync_folder, write_atomically
from fedapp.privacy.ledger_lines import Entry, chain_of, check_head_of, parse, written

__all__ = ["Entry", "FileLedger", "Ledger", "StateLedger"]


class Ledger(Protocol):
    """Raises FederationError wherever its content is not what was written."""

    def entries(self) -> list[Entry]:
        """All that was ever spent, in order."""

    def append(self, entry: Entry) -> None:
        """Add what is about to be spent; once this returns it cannot be forgotten."""

    def held(self) -> AbstractContextManager[None]:
        """A lock against other writers, to hold while reading, deciding and appending."""


class FileLedger:
    """A ledger in a file that outlives the process and the run.

    A last line that ends in its middle was torn while being written: what it was to pay for had not begun, and it is
    cut off by the next one.

    `second_head`: a file in another folder that holds the same as the one beside the ledger. `heads_folder`: a folder
    for one more, whose name follows from the ledger's first line: an old copy of the ledger is known by it wherever it
    lies. `makes_folder`: whether a folder that is not there is made. Where it may be lost, it is not: its owner knows.
    """

    def __init__(
        self,
        path: Path,
        *,
        second_head: Path | None = None,
        heads_folder: Path | None = None,
        makes_folder: bool = True,
    ) -> None:
        self.path = path.resolve()  # by whatever link it is reached, it has one lock
        self._heads = [self.path.with_name(self.path.name + ".head")] + ([second_head] if second_head else [])
        self._heads_folder, self._makes_folder = heads_folder, makes_folder

    @property
    def head(self) -> str:
        """The number of lines and the last one's hash; "" of an empty ledger."""
        lines, _ = self._read()
        return f"{len(lines)} {chain_of(lines[-1])}" if lines else ""

    def check_head(self, head: str, where: str) -> None:
        """Raises FederationError where the ledger does not hold all that it held when this was its `head`."""
        check_head_of(head, where, self._read()[0], str(self.path))

    def entries(self) -> list[Entry]:
        return self._read()[1]

    def check(self) -> None:
        """Raises FederationError where it is damaged, OSError where it or a head cannot be read and written."""
        self.entries()
        with self.held():
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._write_heads(self._read()[0])

    @contextmanager
    def held(self) -> Iterator[None]:
        self._find_folder()
        with self.path.with_name(self.path.name + ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def append(self, entry: Entry) -> None:
        self._find_folder()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            lines, _ = self._read()
            added = written(entry, lines)
            kept = "\n".join(lines).encode()  # its newline may have been lost
            file.seek(len(kept))
            file.truncate()
            file.write(f"{chr(10) if kept else ''}{added}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        if not lines:
            sync_folder(self.path.parent)
        self._write_heads([*lines, added])

    def _write_heads(self, lines: list[str]) -> None:
        # Not synced, which would cost as much again: an old or empty one says no more than that the ledger was shorter.
        content = f"{len(lines)} {chain_of(lines[-1])}" if lines else ""
        for head in self._heads_of(lines):
            head.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(head, content.encode(), mode=0o600, synced=False)

    def _heads_of(self, lines: list[str]) -> list[Path]:
        """Where the heads of a ledger with these lines are."""
        if self._heads_folder is None or not lines:
            return self._heads
        identity = hashlib.sha256(lines[0].encode()).hexdigest()[:16]  # a run's random name is in the line
        return [*self._heads, self._heads_folder / f"ledger-{identity}.head"]

    def _find_folder(self) -> None:
        if self._makes_folder:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        elif not self.path.parent.is_dir():
            raise FederationError(
                f"ledger {self.path}: its folder is not there. If it is lost, put it back from its newest copy;"
                " make it anew only for a device that has spent nothing yet"
            )

    def _read(self) -> tuple[list[str], list[Entry]]:
        """All whole lines, and what they say.

        Heads are read first. A writer may add lines meanwhile, and writes heads after them: so a head that is read
        first is never newer than the ledger, and who only reads needs no lock.
        """
        heads = [(head, _text(head)) for head in self._heads_of(self._lines())]
        lines = self._lines()
        entries = parse(lines, str(self.path))
        for head, content in heads:
            check_head_of(content, str(head), lines, str(self.path))
        return lines, entries

    def _lines(self) -> list[str]:
        *lines, last = _text(self.path).split("\n")
        return [*lines, last] if last.endswith("}") else lines  # whole if its hash is right, even without its newline


class StateLedger:
    """A ledger in a SuperNode's `context.state`, for as long as the run lasts: for simulations."""

    def __init__(self, state: RecordDict, client: int) -> None:
        self._state, self._key = state, f"ledger-{client}"

    def entries(self) -> list[Entry]:
        return parse(self._lines(), f"in context.state[{self._key!r}]")

    def append(self, entry: Entry) -> None:
        lines = self._lines()
        self._state[self._key] = ConfigRecord({"lines": [*lines, written(entry, lines)]})

    def held(self) -> AbstractContextManager[None]:
        return nullcontext()  # a SuperNode's state belongs to the one message that it works on

    def _lines(self) -> list[str]:
        record = self._state.config_records.get(self._key)
        return [str(line) for line in record["lines"]] if record is not None else []  # type: ignore[union-attr]


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise FederationError(f"ledger {path}: is damaged: it is not text") from None
