"""Whether a model and its config values fit the data, found out before any SuperNode is touched."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedapp.common.errors import ConfigError
from fedapp.common.raised_at import raised_at
from fedapp.data.source import Schema

__all__ = ["check_choice", "check_fits", "check_sizes", "image_shape", "smallest_batch"]


def check_sizes(key: str, sizes: object) -> None:
    """A ConfigError that names `key`, unless `sizes` is a list of positive integers."""
    if not isinstance(sizes, list | tuple) or not all(type(size) is int and size > 0 for size in sizes):
        raise ConfigError(f"{key}={sizes}: must be a list of positive integers, e.g. {key}=[32,64]")


def check_choice(key: str, value: object, choices: tuple[str, ...]) -> None:
    """A ConfigError that names `key`, unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigError(f"{key}={value}: must be one of {', '.join(choices)}")


def image_shape(schema: Schema, model: str) -> tuple[int, int, int]:
    """`schema.input_shape` as (C, H, W); a ConfigError that names `model` where examples are no images."""
    if len(schema.input_shape) != 3:
        raise ConfigError(
            f"model={model}: takes images (channels, height, width), but the data's examples have shape"
            f" {schema.input_shape}. Choose model=mlp or model=logistic_regression, or another data=..."
        )
    channels, height, width = schema.input_shape
    return channels, height, width


def check_fits(model: nn.Module, inputs: Callable[[int], Tensor], output_shape: tuple[int, ...]) -> None:
    """Pass two examples, made by `inputs`, through `model`, in evaluation and in training mode.

    Leaves parameters, buffers (BatchNorm's statistics), training flags and torch's global generators as they
    were. Raises ConfigError when the model fails on (2, *input_shape) or gives anything but (2, *output_shape).
    """
    name = type(getattr(model, "net", model)).__name__
    examples = inputs(2)
    shape, expected = tuple(examples.shape[1:]), (2, *output_shape)
    remedy = "Choose another model=..." + (" or data.size=..." if len(shape) == 3 else "")
    try:
        outputs = _trial(model, examples)
    except Exception as error:  # whatever a network of the user's raises, the remedy is the same
        remedy, reason = _embedding_remedy(model, examples) or remedy, raised_at(error, passing=__file__).rstrip(".!")
        raise ConfigError(f"model: {name} cannot take examples of shape {shape}: {reason}. {remedy}") from error
    for output in outputs:
        if not isinstance(output, Tensor):
            kind = type(output).__name__
            raise ConfigError(f"model: {name} gives a {kind}, the task needs a tensor of shape {expected}. {remedy}")
        if tuple(output.shape) != expected:
            raise ConfigError(
                f"model: {name} gives shape {tuple(output.shape)} for two examples of shape {shape},"
                f" the task needs {expected}. {remedy}, or give its last layer {expected[-1]} outputs"
            )


def _embedding_remedy(model: nn.Module, examples: Tensor) -> str:
    """What to do where numbers come to an embedding, which takes indices; "" where that is not what is wrong."""
    if not examples.is_floating_point() or not any(isinstance(module, nn.Embedding) for module in model.modules()):
        return ""
    return (
        "An nn.Embedding takes whole numbers, and this data's inputs are float32: give the schema of your data"
        " vocabulary=<number of tokens>, which leaves them int64; or index a column of the table by x[:, i].long(),"
        " with data.scaling=none"
    )


def smallest_batch(model: nn.Module, inputs: Callable[[int], Tensor]) -> int:
    """How many examples a training step needs: 2 where BatchNorm cannot train on one, else 1."""
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        return 1
    try:
        _trial(model, inputs(1))
    except Exception:  # it takes two, as has been tried
        return 2
    return 1


def _trial(model: nn.Module, inputs: Tensor) -> list[object]:
    """The outputs in evaluation and in training mode."""
    tensor = next(model.parameters(), torch.empty(0))
    inputs = inputs.to(tensor.device)
    generators = [tensor.device] if tensor.device.type == "cuda" else []
    flags = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad(), torch.random.fork_rng(generators):  # dropout draws in training mode
            outputs = []
            for mode in (False, True):
                # On copies of the buffers, since a pass in training mode moves BatchNorm's statistics.
                buffers = {key: buffer.clone() for key, buffer in model.named_buffers()}
                outputs.append(functional_call(model.train(mode), buffers, (inputs,)))
            return outputs
    finally:
        for module, flag in flags.items():
            module.training = flag
