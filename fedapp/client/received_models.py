"""The last models that a SuperNode has got of a run, from which differences lead to newer ones."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flwr.app import RecordDict
from safetensors.torch import load

from fedapp.common.errors import FederationError
from fedapp.common.files import write_atomically
from fedapp.common.state_digest import State, state_sha256
from fedapp.common.tensor_file import tensor_file
from fedapp.updates.difference_codec import DifferenceCodec
from fedapp.wire.differences import unpack_differences, with_model
from fedapp.wire.records import ARRAYS, arrays_to_state, state_to_arrays

__all__ = ["FolderModels", "ModelStore", "StateModels", "restored"]

log = logging.getLogger("flwr")

KEY = "received"
KEPT = 2  # a reply may be lost, and the server think that a SuperNode has the model before


class ModelStore(Protocol):
    def of(self, sha256: str) -> State | None:
        """The model of this fingerprint, if it is here."""

    def keep(self, sha256: str, model: State) -> None: ...


class FolderModels:
    """Files in a folder, named by their fingerprints. `before_keeping` is called before one is written."""

    def __init__(self, folder: Path, before_keeping: Callable[[], object] = lambda: None) -> None:
        self._folder, self._before_keeping = folder, before_keeping

    def of(self, sha256: str) -> State | None:
        path = self._path(sha256)
        try:
            return dict(load(path.read_bytes()))
        except FileNotFoundError:
            return None
        except Exception as error:  # safetensors' reader has kinds of its own
            log.warning("%s: is damaged (%s); the whole model is asked for", path, error)
            path.unlink(missing_ok=True)
            return None

    def keep(self, sha256: str, model: State) -> None:
        if (path := self._path(sha256)).exists():
            return
        self._before_keeping()
        self._folder.mkdir(parents=True, exist_ok=True)
        others = sorted(self._folder.glob("*.safetensors"), key=lambda other: other.stat().st_mtime_ns)
        write_atomically(path, tensor_file(model), mode=0o600)
        for other in others[: max(0, len(others) - KEPT + 1)]:
            other.unlink(missing_ok=True)

    def _path(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.safetensors"


class StateModels:
    """The last one, in a SuperNode's `context.state`, for as long as the run lasts."""

    def __init__(self, state: RecordDict) -> None:
        self._state = state

    def of(self, sha256: str) -> State | None:
        arrays = self._state.array_records.get(KEY)
        return arrays_to_state(arrays) if arrays is not None else None

    def keep(self, sha256: str, model: State) -> None:
        self._state[KEY] = state_to_arrays(model)


@dataclass(frozen=True)
class Restored:
    """A message with its whole model, and that model with its fingerprint."""

    content: RecordDict
    sha256: str
    model: State


def restored(content: RecordDict, store: ModelStore, codec: DifferenceCodec, names: Sequence[str]) -> Restored | None:
    """A message with its whole model in the place of differences; None where they do not lead from what this SuperNode
    has to the model that they should. `names`: the model's tensors, in its order. Raises FederationError for
    differences that no server of this run makes."""
    try:
        found = unpack_differences(content)
        if found is None:
            model: State = arrays_to_state(content.array_records[ARRAYS], copy=False)
            return Restored(content, state_sha256(model), model)
    except (ValueError, KeyError, TypeError) as error:
        raise FederationError(f"bad message: {error}") from None
    base = store.of(found.base)
    if base is None or base.keys() != set(names) or state_sha256(base) != found.base:
        log.info("this SuperNode does not have the model %s: it asks for the whole", found.base[:12])
        return None
    model = {name: base[name] for name in names}
    try:
        for packed in found.packed:
            model = codec.apply(model, packed)
    except ValueError as error:
        raise FederationError(f"bad message: downlink: {error}") from None
    if state_sha256(model) != found.model:  # as where two machines compute otherwise
        log.warning("differences do not lead to the model %s: this SuperNode asks for the whole", found.model[:12])
        return None
    return Restored(with_model(content, model), found.model, model)
