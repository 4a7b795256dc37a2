"""For which models a device has revealed shares: the same model is not summed over again with other clients.

A server that has one model trained in two rounds, with other survivors, learns the difference of two sums. So a device
notes, before it reveals shares, the model, who survived, what each counted, and what was asked; it reveals shares for
that model again only for the same (the round's number aside), as after a failed round and in a resumed run. What is
noted is never evicted: a full store refuses.
"""

import fcntl
import json
import logging
import math
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fedapp.aggregation.secaggplus.cohort_view import CohortView
from fedapp.aggregation.secaggplus.protocol_error import ProtocolError

__all__ = ["MOST_BYTES", "Repetitions"]

log = logging.getLogger("flwr")

FILE = "revealed.jsonl"
MOST_BYTES = 64 << 20  # some 30,000 rounds with a hundred survivors each
ROUNDING = 1e-9


@dataclass(frozen=True)
class Repetitions:
    """In a device's own `folder`. Raises ProtocolError for what it refuses, and where it cannot read or write."""

    folder: Path
    most_bytes: int = MOST_BYTES

    def check(self, view: CohortView, present: Collection[int]) -> None:
        """Before training: could a sum over some of those `present` be one for which shares may be revealed?"""
        with self._file() as file:
            for noted in _noted(file, view.model):
                _check_work(noted, view)
                if not set(noted["survivors"]) <= set(present):
                    raise _repetition(noted)

    def note(self, view: CohortView, survivors: Collection[int]) -> None:
        """Before shares are revealed; `survivors`: those in the sum whom masks connect with this client, since the sum
        over them can be unmasked alone. Once this returns, it is on the disk."""
        found, total = sorted(survivors), math.fsum(view.by_client[client].weight for client in survivors)
        weights = [view.by_client[client].weight / total if total else 0.0 for client in found]
        with self._file() as file:
            known = False
            for noted in _noted(file, view.model):
                _check_work(noted, view)
                same = noted["survivors"] == found and all(
                    math.isclose(one, other, rel_tol=ROUNDING)
                    for one, other in zip(noted["weights"], weights, strict=True)
                )
                if not same:
                    raise _repetition(noted)
                known = True
            if known:
                return
            line = json.dumps({"model": view.model, "survivors": found, "weights": weights, "work": view.work}) + "\n"
            if file.seek(0, os.SEEK_END) + len(line) > self.most_bytes:
                raise ProtocolError("repetition", "this device's record of revealed sums is full (see its keep-path)")
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _file(self) -> Iterator[BinaryIO]:
        """The record, which nobody else reads or writes meanwhile."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            number = os.open(self.folder / FILE, os.O_RDWR | os.O_CREAT, 0o600)
            with os.fdopen(number, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield file
        except OSError as error:
            log.error("keep-path: %s: %s", self.folder / FILE, error)
            raise ProtocolError("repetition", "the record of revealed sums cannot be read or written") from None


def _noted(file: BinaryIO, model: str) -> Iterator[dict]:  # type: ignore[type-arg]
    """What was noted of a model. A last line without its end was never acted upon, and goes."""
    file.seek(0)
    end = 0
    for line in file:
        if not line.endswith(b"\n"):
            file.truncate(end)
            return
        end += len(line)
        if not line.startswith(b'{"model": "') or not line.endswith(b"}\n"):
            raise ProtocolError("repetition", "the record of revealed sums is damaged")
        if line.startswith(b'{"model": "' + model.encode() + b'", '):
            try:
                yield json.loads(line)
            except ValueError:
                raise ProtocolError("repetition", "the record of revealed sums is damaged") from None


def _check_work(noted: dict, view: CohortView) -> None:  # type: ignore[type-arg]
    if noted["work"] != view.work:
        raise ProtocolError(
            "repetition", "shares were revealed for this model under another instruction or config; begin another run"
        )


def _repetition(noted: dict) -> ProtocolError:  # type: ignore[type-arg]
    survivors = ", ".join(map(str, noted["survivors"][:20]))
    return ProtocolError(
        "repetition",
        f"shares were revealed for this model before; they are again for the same clients and weights ({survivors})",
    )
