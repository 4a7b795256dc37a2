"""What a train or evaluate message asks of a SuperNode."""

import math
import re
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from fedapp.wire.records import ARRAYS, CONFIG, arrays_to_state, number, numbers, text, whole

__all__ = ["Instruction", "pack_instruction", "unpack_instruction"]


@dataclass(frozen=True)
class Instruction:
    """What a SuperNode is asked to do in a round, for these of its clients. Evaluation needs no weights.

    `lr_factor` scales the clients' learning rate in this round. With `each`, updates are wanted one by one, not summed.
    `run` names the run, the same one after it was resumed: 16 hexadecimal digits. `deliver`: this model is the run's
    result, for the clients to keep.
    """

    server_round: int
    clients: tuple[int, ...]
    weights: tuple[float, ...] = ()
    lr_factor: float = 1.0
    each: bool = False
    run: str = ""
    deliver: bool = False


def pack_instruction(instruction: Instruction, arrays: ArrayRecord, config: ConfigRecord | None = None) -> RecordDict:
    """The content of a train or evaluate message. `config`: further entries, as Flower's `start` passes them; where the
    instruction leaves `run` and `deliver` open, they hold."""
    entries = ConfigRecord(dict(config or {}))
    entries["server-round"] = instruction.server_round
    entries["clients"] = list(instruction.clients)
    entries["weights"] = list(instruction.weights)
    entries["lr-factor"] = instruction.lr_factor
    entries["each"] = instruction.each
    entries["run"] = instruction.run or str(entries.get("run", ""))
    entries["deliver"] = instruction.deliver or bool(entries.get("deliver", False))
    return RecordDict({ARRAYS: arrays, CONFIG: entries})


def unpack_instruction(content: RecordDict) -> tuple[Instruction, dict[str, Tensor]]:
    """The instruction and the global model's state dict. Raises ValueError, KeyError or TypeError if malformed."""
    config = content.config_records[CONFIG]
    lr_factor, run = float(number(config["lr-factor"])), text(config["run"])
    if not (math.isfinite(lr_factor) and lr_factor >= 0):
        raise ValueError(f"expected a learning rate factor, got {lr_factor}")
    if run and not re.fullmatch("[0-9a-f]{16}", run):  # it becomes part of a path
        raise ValueError("expected 16 hexadecimal digits for the run's name")
    instruction = Instruction(
        server_round=whole(config["server-round"]),
        clients=tuple(whole(client) for client in numbers(config["clients"])),
        weights=tuple(float(weight) for weight in numbers(config["weights"])),
        lr_factor=lr_factor,
        each=bool(config["each"]),
        run=run,
        deliver=bool(config["deliver"]),
    )
    return instruction, arrays_to_state(content.array_records[ARRAYS])
