"""What a message may ask of a device: work for itself, once, and for a round only once where its work has a limit."""

from collections.abc import Mapping

import torch
from flwr.app import ConfigRecord, Context

from fedapp.common.cores import allowed_cores
from fedapp.common.errors import FederationError
from fedapp.data.shards import hosted_clients
from fedapp.wire.instruction import Instruction

__all__ = ["begin_training", "check_own", "use_threads"]

WORK = "work"  # of the SuperNode's state: the run and the round of its last training
LIMITS = ("max-steps", "max-seconds")


def use_threads(asked: int, *, on_device: bool) -> None:
    """As many as the run asks for: another run's may have been other. A device's cores are its owner's, however many a
    server asks for."""
    torch.set_num_threads(min(asked, allowed_cores()) if on_device else asked)


def check_own(instruction: Instruction, context: Context) -> None:
    """Raises FederationError for an instruction to a device for other clients than its own, or for it several times:
    each of them would be trained, and the operator's limits are for one training."""
    if "data-path" not in context.node_config:
        return
    if instruction.clients != tuple(hosted_clients(context.node_config, context.node_id, 0)):
        raise FederationError("an instruction for other clients than this device's own, or for it more than once")


def begin_training(instruction: Instruction, context: Context) -> None:
    """`check_own`, and note the training. Raises FederationError where the operator limits a round's work and this
    device has trained in this round of the run, or in a later one."""
    check_own(instruction, context)
    node_config: Mapping[str, object] = context.node_config
    if "data-path" not in node_config or not any(key in node_config for key in LIMITS):
        return
    last = context.state.config_records.get(WORK)
    if last is not None and last["run"] == instruction.run and instruction.server_round <= int(str(last["round"])):
        raise FederationError(
            f"round {instruction.server_round}: this device has trained in it or in a later one, and its operator"
            " limits the work of a round"
        )
    context.state[WORK] = ConfigRecord({"run": instruction.run, "round": instruction.server_round})
