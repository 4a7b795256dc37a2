"""What a helper keeps of a run: in its own folder, where it has one, else in its SuperNode's state.

The keys by which it takes seeds lie in the state, and are new after a restart. The key under which it seals models, and
the newest of them, must outlast that.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from flwr.app import ConfigRecord, RecordDict
from safetensors.torch import load

from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.common.files import write_atomically
from fedapp.common.state_digest import State
from fedapp.common.tensor_file import tensor_file
from fedapp.wire.records import arrays_to_state, state_to_arrays, whole

__all__ = ["KeptModel", "RunStore"]

MOST_RUNS = 8  # of how many runs models are kept
KEPT, MODEL = "helper-kept", "helper-model"


@dataclass(frozen=True)
class KeptModel:
    """`key`: of the run. `version` of `sealed`, the newest model; `model`: its SHA-256."""

    key: bytes
    version: int
    model: str
    sealed: State


@dataclass(frozen=True)
class RunStore:
    """`folder`: None where all lies in the state, as in a simulation that knows no run directory. `max_bytes`: that it
    may fill. The runs that were summed longest ago make room for another, and cannot go on then. No server can have one
    forgotten by a name that it invents: only a sum of enough pinned clients is kept."""

    folder: Path | None
    max_bytes: int | None = None

    def load(self, run: str, state: RecordDict) -> KeptModel | None:
        """Raises ProtocolError for a damaged file."""
        if self.folder is None:
            record = state.config_records.get(KEPT)
            if record is None or record["run"] != run:
                return None
            sealed = arrays_to_state(state.array_records[MODEL])
            return KeptModel(bytes.fromhex(str(record["key"])), whole(record["version"]), str(record["model"]), sealed)
        file = self._file(run)
        if not file.exists():
            return None
        try:
            about, _, content = file.read_bytes().partition(b"\n")
            found = json.loads(about)
            return KeptModel(bytes.fromhex(found["key"]), int(found["version"]), str(found["model"]), load(content))
        except Exception:  # safetensors' reader has kinds of its own
            why = "what this helper keeps of the run is damaged (see its keep-path)"
            raise ProtocolError("lost state", why) from None

    def save(self, run: str, kept: KeptModel, state: RecordDict) -> None:
        """On the disk before it returns."""
        about = {"key": kept.key.hex(), "version": kept.version, "model": kept.model}
        if self.folder is None:
            state[KEPT] = ConfigRecord(
                {"run": run, "key": kept.key.hex(), "version": kept.version, "model": kept.model}
            )
            state[MODEL] = state_to_arrays(kept.sealed)
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = json.dumps(about).encode() + b"\n" + tensor_file(kept.sealed)
        self._make_room(run, len(content))
        write_atomically(self._file(run), content, mode=0o600)

    def _make_room(self, run: str, size: int) -> None:
        assert self.folder is not None
        others = [file for file in self.folder.glob("run-*.sealed") if file != self._file(run)]
        others.sort(key=lambda file: file.stat().st_mtime_ns, reverse=True)
        left = None if self.max_bytes is None else self.max_bytes - 2 * size  # an old and a new one of this run
        for number, file in enumerate(others):
            left = None if left is None else left - file.stat().st_size
            if number >= MOST_RUNS - 1 or (left is not None and left < 0):
                file.unlink(missing_ok=True)

    def _file(self, run: str) -> Path:
        assert self.folder is not None
        return self.folder / f"run-{run}.sealed"  # `run` is 16 hexadecimal digits
