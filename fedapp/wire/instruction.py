"""What a train or evaluate message asks of a SuperNode."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, RecordDict

from fedapp.common.state_digest import State
from fedapp.wire.model import GlobalModel
from fedapp.wire.records import ARRAYS, CONFIG, arrays_to_state, number, numbers, text, whole

__all__ = ["Instruction", "Params", "pack_instruction", "run_of", "stage_of", "unpack_instruction", "with_stage"]

Params = Mapping[str, str | int | float | bool]  # public values of an update step in one round
PROTOCOL, STAGE, PLAN = "protocol", "stage", "plan"


@dataclass(frozen=True)
class Instruction:
    """What a SuperNode is asked to do in a round, for these of its clients, with their weights.

    `lr_factor` scales the clients' learning rate in this round. With `each`, updates are wanted one by one, not summed.
    `run` names the run, the same one after it was resumed: 16 hexadecimal digits. `deliver`: this model is the run's
    result, for the clients to store. `candidate`: to judge the model on training examples, before the server chooses
    whom it asks to train. `plan`: by update step, its public values in this round.
    """

    server_round: int
    clients: tuple[int, ...]
    weights: tuple[float, ...] = ()
    lr_factor: float = 1.0
    each: bool = False
    run: str = ""
    deliver: bool = False
    candidate: bool = False
    plan: Mapping[str, Params] = field(default_factory=dict)


def pack_instruction(instruction: Instruction, model: GlobalModel) -> RecordDict:
    """The content of a train or evaluate message."""
    config = ConfigRecord(
        {
            "server-round": instruction.server_round,
            "clients": list(instruction.clients),
            "weights": list(instruction.weights),
            "lr-factor": instruction.lr_factor,
            "each": instruction.each,
            "run": instruction.run,
            "deliver": instruction.deliver,
            "candidate": instruction.candidate,
            PLAN: json.dumps({name: dict(params) for name, params in instruction.plan.items()}),
        }
    )
    return RecordDict({ARRAYS: model.arrays, CONFIG: config})


def unpack_instruction(content: RecordDict) -> tuple[Instruction, State]:
    """The instruction and the global model's state dict. Raises ValueError, KeyError or TypeError if malformed."""
    config = content.config_records[CONFIG]
    lr_factor, run = float(number(config["lr-factor"])), run_of(content)
    if not (math.isfinite(lr_factor) and lr_factor >= 0):
        raise ValueError(f"expected a learning rate factor, got {lr_factor}")
    instruction = Instruction(
        server_round=whole(config["server-round"]),
        clients=tuple(whole(client) for client in numbers(config["clients"])),
        weights=tuple(float(weight) for weight in numbers(config["weights"])),
        lr_factor=lr_factor,
        each=bool(config["each"]),
        run=run,
        deliver=bool(config["deliver"]),
        candidate=bool(config["candidate"]),
        plan=_plan(str(config[PLAN])),
    )
    if len(instruction.weights) != len(instruction.clients):
        raise ValueError(f"{len(instruction.weights)} weights for {len(instruction.clients)} clients")
    return instruction, arrays_to_state(content.array_records[ARRAYS])


def run_of(content: RecordDict) -> str:
    """The name of the run of a train or evaluate message, "" for none. Raises ValueError, KeyError or TypeError."""
    run = text(content.config_records[CONFIG]["run"])
    if run and not re.fullmatch("[0-9a-f]{16}", run):  # it becomes part of a path
        raise ValueError("expected 16 hexadecimal digits for the run's name")
    return run


def _plan(line: str) -> dict[str, Params]:
    try:
        found = json.loads(line)
    except RecursionError:
        raise ValueError("expected the values of each update step") from None
    if not isinstance(found, dict) or not all(isinstance(params, dict) for params in found.values()):
        raise ValueError("expected the values of each update step")
    for params in found.values():
        if not all(isinstance(value, str | int | float | bool) for value in params.values()):
            raise ValueError("the values of an update step are text, numbers or booleans")
    return found


def with_stage(content: RecordDict, stage: str) -> RecordDict:
    """`content` as the question of one stage of an aggregation protocol."""
    content[PROTOCOL] = ConfigRecord({STAGE: stage})
    return content


def stage_of(content: RecordDict) -> str:
    """Raises KeyError where a message names no stage."""
    return text(content.config_records[PROTOCOL][STAGE])
