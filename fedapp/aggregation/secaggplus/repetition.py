"""For which models a device has revealed shares: the same model is not summed over again with other clients.

A server that has one model trained in two rounds, with other survivors, learns the difference of two sums. So a device
notes, before it reveals shares, the model, who survived, what each counted, and what was asked; it reveals shares for
that model again only for the same (the round's number aside), as after a failed round and in a resumed run. What is
noted is never evicted: a full store refuses.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from fedapp.aggregation.secaggplus.cohort_view import CohortView
from fedapp.aggregation.whole_numbers.noted_file import MOST_BYTES, NotedFile
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError

__all__ = ["MOST_BYTES", "Repetitions"]

FILE = "revealed.jsonl"
ROUNDING = 1e-9


@dataclass(frozen=True)
class Repetitions:
    """In a device's own `folder`. Raises ProtocolError for what it refuses, and where it cannot read or write."""

    folder: Path
    most_bytes: int = MOST_BYTES

    def check(self, view: CohortView, present: Collection[int]) -> None:
        """Before training: could a sum over some of those `present` be one for which shares may be revealed?"""
        with self._noted.opened() as file:
            for noted in file.of(view.model):
                _check_work(noted, view)
                if not set(noted["survivors"]) <= set(present):
                    raise _repetition(noted)

    def note(self, view: CohortView, survivors: Collection[int]) -> None:
        """Before shares are revealed; `survivors`: those in the sum whom masks connect with this client, since the sum
        over them can be unmasked alone. Once this returns, it is on the disk."""
        found, total = sorted(survivors), math.fsum(view.by_client[client].weight for client in survivors)
        weights = [view.by_client[client].weight / total if total else 0.0 for client in found]
        with self._noted.opened() as file:
            known = False
            for noted in file.of(view.model):
                _check_work(noted, view)
                same = noted["survivors"] == found and all(
                    math.isclose(one, other, rel_tol=ROUNDING)
                    for one, other in zip(noted["weights"], weights, strict=True)
                )
                if not same:
                    raise _repetition(noted)
                known = True
            if not known:
                file.append(view.model, {"survivors": found, "weights": weights, "work": view.work})

    @property
    def _noted(self) -> NotedFile:
        return NotedFile(self.folder, FILE, self.most_bytes)


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
