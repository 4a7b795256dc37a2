"""The client half of the plain protocol: train every client that is asked for, and send the sum of their updates."""

from collections.abc import Mapping

from flwr.app import RecordDict

from fedapp.aggregation.exact_sum import WeightedSum
from fedapp.aggregation.plain.packed_levels import LevelSum
from fedapp.aggregation.protocol import ClientHalf, Handler, Train
from fedapp.common.state_digest import State
from fedapp.wire.instruction import Instruction, unpack_instruction
from fedapp.wire.reply import ClientReport, Reply, pack_reply

__all__ = ["STAGE", "PlainClient"]

STAGE = "train"


class PlainClient(ClientHalf):
    """`level_bits`: of the whole numbers that updates are made of, where they are."""

    def __init__(self, level_bits: int | None = None) -> None:
        self._level_bits = level_bits

    @property
    def stages(self) -> Mapping[str, Handler]:
        return {STAGE: self.train}

    def train(self, content: RecordDict, state: RecordDict, train: Train) -> RecordDict:
        """Several good clients give one fixed-point sum, unless the server wants each update; a single one gives its
        update as it is. A client that fails is rejected alone."""
        instruction, model = unpack_instruction(content)
        single = instruction.each or len(instruction.clients) == 1
        if self._level_bits is not None and not instruction.each:
            return self._levels(LevelSum(self._level_bits), instruction, model, train)
        total: WeightedSum | None = None
        reports: list[ClientReport] = []
        updates: dict[int, State] = {}
        for client, weight in zip(instruction.clients, instruction.weights, strict=True):
            report, update = train(client, instruction, model)
            reports.append(report)
            if update and single:
                updates[client] = update
            elif update:
                total = total or WeightedSum(update)  # all have the form that the site has checked
                total.add(update, weight)
        return pack_reply(Reply(tuple(reports), updates, total.totals if total is not None else {}))

    @staticmethod
    def _levels(total: LevelSum, instruction: Instruction, model: State, train: Train) -> RecordDict:
        """Whole numbers give their sum, packed, be it of one client or of several."""
        reports: list[ClientReport] = []
        for client in instruction.clients:
            report, update = train(client, instruction, model)
            reports.append(report)
            if update:
                total.add(update)
        return pack_reply(Reply(tuple(reports), total=total.packed()))
