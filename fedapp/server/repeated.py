"""A round that must be done again as it was: devices have revealed shares for its model, which it did not change."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from typing import Any

from fedapp.aggregation.protocol import Aggregate, Cohort
from fedapp.common.errors import FederationError
from fedapp.wire.instruction import Instruction
from fedapp.wire.model import GlobalModel

__all__ = ["RepeatedRound"]


class RepeatedRound:
    """`instruction`: what the next round asks again; None where it is free to ask anything."""

    def __init__(self) -> None:
        self.instruction: Instruction | None = None

    def note(self, cohort: Cohort, model: GlobalModel, changed: GlobalModel | None, aggregate: Aggregate) -> None:
        """What came of a round with `cohort`, whose clients began with `model`."""
        revealing = aggregate.revealed or self.instruction is not None
        if changed is not None and not (revealing and changed.sha256 == model.sha256):
            self.instruction = None
        elif self.instruction is None and aggregate.revealed:
            self.instruction = _restricted(cohort.instruction, aggregate.revealed)

    def ask(self, server_round: int, reachable: Collection[int]) -> Instruction | None:
        """Raises FederationError where one of those it must ask again is not there."""
        if self.instruction is None:
            return None
        clients = self.instruction.clients
        if missing := sorted(set(clients) - set(reachable)):
            raise FederationError(
                "devices have revealed shares for this model, which the round did not change, and do so again only if"
                f" clients {list(clients)[:20]} all take part; {missing[:20]} are not there. Start a new run, or go on"
                " with run.resume once they are"
            )
        return replace(self.instruction, server_round=server_round)

    def state_dict(self) -> dict[str, Any] | None:
        return None if self.instruction is None else asdict(self.instruction)

    def load_state_dict(self, saved: Mapping[str, Any] | None) -> None:
        if saved is not None:
            lists = {name: tuple(saved[name]) for name in ("clients", "weights")}
            self.instruction = Instruction(**{**saved, **lists})


def _restricted(instruction: Instruction, clients: Collection[int]) -> Instruction:
    """The same for these of its clients only."""
    rows = [row for row in zip(instruction.clients, instruction.weights, strict=True) if row[0] in clients]
    return replace(
        instruction, clients=tuple(client for client, _ in rows), weights=tuple(weight for _, weight in rows)
    )
