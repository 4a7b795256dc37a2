"""For which models a helper has removed whose masks: once for each client and model, whatever run and round are called.

What is noted is on the disk before anything is laid bare, failed attempts included, and is never evicted. In a
simulation it lies in the SuperNode's state.
"""

from collections.abc import Collection
from dataclasses import dataclass

from flwr.app import ConfigRecord, RecordDict

from fedapp.aggregation.whole_numbers.noted_file import NotedFile
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.wire.records import numbers

__all__ = ["Released"]

FILE = "summed.jsonl"
STATE = "helper-summed"


@dataclass(frozen=True)
class Released:
    """`file`: None in a simulation."""

    file: NotedFile | None

    def note(self, model: str, clients: Collection[int], state: RecordDict) -> None:
        """Raises ProtocolError where one of these clients has been in a sum for this model."""
        if self.file is None:
            known = state.config_records.get(STATE, ConfigRecord())
            noted = {int(client) for client in numbers(known[model])} if model in known else set()
            _refuse(noted & set(clients))
            state[STATE] = ConfigRecord({**known, model: sorted(noted | set(clients))})
            return
        with self.file.opened() as file:
            for line in file.of(model):
                _refuse(set(line["clients"]) & set(clients))
            file.append(model, {"clients": sorted(clients)})


def _refuse(again: Collection[int]) -> None:
    if again:
        raise ProtocolError(
            "repetition",
            f"the masks of clients {sorted(again)[:20]} were removed for this model before, in whichever run and round;"
            " that is done once. The model has not changed since: begin a new run with another run.seed",
            accused=again,
        )
