"""Whether this machine computes a network in the precision that a run asks for."""

import torch
from torch import nn

from fedapp.common.errors import DeviceError
from fedapp.learning.task import Task

__all__ = ["check_precision"]


def check_precision(precision: str, whole: nn.Module, task: Task) -> None:
    """Raises DeviceError where it cannot: torch has no LSTM in bfloat16 for processors without instructions for it."""
    if precision == "fp32":
        return
    device, training = next(whole.parameters()).device, whole.training
    whole.eval()  # no statistics of normalisation are touched
    try:
        with torch.autocast(device.type, torch.bfloat16):
            whole(task.example_inputs(2).to(device))
    except RuntimeError as error:
        raise DeviceError(
            f"train.precision={precision}: this network cannot be computed in bfloat16 on this machine"
            f" ({str(error).splitlines()[0]}); set train.precision=fp32"
        ) from None
    finally:
        whole.train(training)
