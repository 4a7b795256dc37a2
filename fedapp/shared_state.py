"""Which part of a model travels: what training can change. What is frozen is the same everywhere, and stays."""

from collections.abc import Mapping

from torch import Tensor, nn

__all__ = ["frozen_state", "load_shared", "shared_state"]


def _shared_names(model: nn.Module) -> list[str]:
    """Everything where no parameter is frozen; else trainable parameters, and buffers of modules that have some."""
    names = list(model.state_dict())
    if all(parameter.requires_grad for parameter in model.parameters()):
        return names
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    owners = {name.rpartition(".")[0] for name in trained}
    buffers = {name for name, _ in model.named_buffers() if name.rpartition(".")[0] in owners}
    return [name for name in names if name in trained | buffers]


def shared_state(model: nn.Module) -> dict[str, Tensor]:
    """The part of the state dict that is in messages, averages and checkpoints."""
    state = model.state_dict()
    return {name: state[name] for name in _shared_names(model)}


def frozen_state(model: nn.Module) -> dict[str, Tensor]:
    """The rest of the state dict: the same on server and clients, or they could not average."""
    shared = set(_shared_names(model))
    return {name: value for name, value in model.state_dict().items() if name not in shared}


def load_shared(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put a shared state into `model`. Raises ValueError where it is another model's."""
    expected = _shared_names(model)
    if state.keys() != set(expected):
        names = sorted(state.keys() ^ set(expected))
        raise ValueError(f"the global model is another one than this: it differs in {', '.join(names[:5])}")
    try:
        model.load_state_dict(dict(state), strict=False)
    except RuntimeError as error:
        raise ValueError(str(error)) from None
