"""For which models a helper has removed whose masks: once for each client and model, whatever run and round are called.

What is noted is on the disk before anything is laid bare, failed attempts included, and is never evicted. In a
simulation it lies in the SuperNode's state.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import ConfigRecord, RecordDict

from fedapp.aggregation.helper.helper_messages import REPETITION
from fedapp.aggregation.whole_numbers.noted_file import NotedFile
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError

__all__ = ["Released"]

FILE = "summed.jsonl"
STATE = "helper-summed"


@dataclass(frozen=True)
class Released:
    """`file`: None in a simulation."""

    file: NotedFile | None

    def note(self, model: str, clients: Collection[int], request: str, state: RecordDict) -> None:
        """`request`: a digest of all that was asked. Asked again to the last bit, as where the answer was lost, it may
        be answered again. Raises ProtocolError where one of these clients has been in another sum for this model."""
        if self.file is None:
            known = {key: str(value) for key, value in state.config_records.get(STATE, ConfigRecord()).items()}
            _check([json.loads(line) for line in known.get(model, "").splitlines()], clients, request)
            line = json.dumps({"clients": sorted(clients), "request": request})
            state[STATE] = ConfigRecord({**known, model: f"{known.get(model, '')}{line}\n"})
            return
        with self.file.opened() as file:
            if not _check(list(file.of(model)), clients, request):
                file.append(model, {"clients": sorted(clients), "request": request})


def _check(lines: Sequence[Mapping[str, Any]], clients: Collection[int], request: str) -> bool:
    """Whether this very request was answered before."""
    if any(line["request"] == request for line in lines):
        return True
    _refuse({client for line in lines for client in line["clients"]} & set(clients))
    return False


def _refuse(again: Collection[int]) -> None:
    if again:
        raise ProtocolError(
            REPETITION,
            f"the masks of clients {sorted(again)[:20]} were removed for this model before, in whichever run and round;"
            " that is done once. The model has not changed since: begin a new run with another run.seed",
            accused=again,
        )
