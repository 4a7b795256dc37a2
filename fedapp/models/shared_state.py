"""Which part of a model travels: what training can change, but for what is personal. The rest stays where it is."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = [
    "aliases",
    "always_shared",
    "buffer_names",
    "constant_names",
    "frozen_state",
    "keep_constant",
    "load_shared",
    "load_tensors",
    "make_personal",
    "personal_state",
    "shared_state",
]

MARK = "stays_with_the_client"
TRAVELS = "always_travels"
CONSTANT = "buffers_are_constant"


def make_personal(module: nn.Module) -> None:
    """Let `module` be each client's own: trained there, and never sent."""
    setattr(module, MARK, True)


def always_shared(module: nn.Module) -> None:
    """Let the buffers of `module` travel also where it has no parameter that is trained, and others are frozen."""
    setattr(module, TRAVELS, True)


def keep_constant(module: nn.Module) -> None:
    """Say that no training changes the buffers of `module`: what a codec makes of their difference, 0, is no update."""
    setattr(module, CONSTANT, True)


def constant_names(model: nn.Module) -> frozenset[str]:
    """Names in the state dict of buffers that no training changes."""
    return frozenset(
        f"{name}.{key}" if name else key
        for name, module in model.named_modules()
        if getattr(module, CONSTANT, False)
        for key, _ in module.named_buffers(recurse=False)
    )


def _personal_names(model: nn.Module) -> set[str]:
    return {
        f"{name}.{key}" if name else key
        for name, module in model.named_modules()
        if getattr(module, MARK, False)
        for key in module.state_dict()
    }


def aliases(model: nn.Module) -> set[str]:
    """Names in the state dict of tensors that have an earlier name there, such as tied weights, and those of
    opacus.layers.DPLSTM: what is trained under one name must not be overwritten under another."""
    found: set[str] = set()
    for named in (model.named_parameters, model.named_buffers):
        first = {name for name, _ in named()}
        found |= {name for name, _ in named(remove_duplicate=False) if name not in first}
    return found


def buffer_names(model: nn.Module) -> frozenset[str]:
    """Names in the state dict of what is no parameter: running means and variances, counters, constants."""
    return frozenset(model.state_dict()) - {name for name, _ in model.named_parameters(remove_duplicate=False)}


def _shared_names(model: nn.Module) -> list[str]:
    """Everything where no parameter is frozen; else trainable parameters, and buffers of modules that have some or are
    marked as `always_shared`."""
    personal = _personal_names(model) | aliases(model)
    names = [name for name in model.state_dict() if name not in personal]
    if all(parameter.requires_grad for parameter in model.parameters()):
        return names
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    owners = {name.rpartition(".")[0] for name in trained}
    owners |= {name for name, module in model.named_modules() if getattr(module, TRAVELS, False)}
    buffers = {name for name, _ in model.named_buffers() if name.rpartition(".")[0] in owners}
    return [name for name in names if name in trained | buffers]


def shared_state(model: nn.Module) -> dict[str, Tensor]:
    """The part of the state dict that is in messages, averages and checkpoints."""
    state = model.state_dict()
    return {name: state[name] for name in _shared_names(model)}


def personal_state(model: nn.Module) -> dict[str, Tensor]:
    """The part of the state dict that is each client's own."""
    personal = _personal_names(model)
    return {name: value for name, value in model.state_dict().items() if name in personal}


def frozen_state(model: nn.Module) -> dict[str, Tensor]:
    """The rest of the state dict: the same on server and clients, or they could not average."""
    others = {*_shared_names(model), *_personal_names(model), *aliases(model)}
    return {name: value for name, value in model.state_dict().items() if name not in others}


def load_shared(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put a shared state into `model`. Raises ValueError where it is another model's."""
    load_tensors(shared_state(model), state, "the global model")


@torch.no_grad()
def load_tensors(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor], what: str) -> None:
    """Copy `state` into `tensors`, a model's own as its state dict gives them. Raises ValueError, which opens with
    `what`, where names or shapes differ."""
    wrong = sorted(state.keys() ^ tensors.keys()) or [n for n in tensors if tensors[n].shape != state[n].shape]
    if wrong:
        raise ValueError(f"{what} is another one than this: it differs in {', '.join(wrong[:5])}")
    if tensors:
        torch._foreach_copy_(list(tensors.values()), [state[name] for name in tensors])
