"""What the frozen part of a model makes of examples: computed once for each client, not once an epoch.

In memory, where a process lives on; in files too, on a device, where every message starts a new process.
"""

import hashlib
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from fedapp.common.files import write_atomically
from fedapp.data.shards import ClientData
from fedapp.data.source import Examples

__all__ = ["FeatureFiles", "Features", "features_of"]

log = logging.getLogger("flwr")

BATCH = 16  # no larger one was faster on a CPU core; fixed, as a convolution's last bits may depend on it


@torch.no_grad()
def features_of(frozen: nn.Module, examples: Examples) -> Examples:
    """The same examples with features (n, *feature_shape) float32 for inputs."""
    if not len(examples):
        return examples
    device = next(frozen.parameters()).device
    chunks = [frozen(chunk.to(device)).cpu() for chunk in torch.split(examples.inputs, BATCH)]
    return Examples(torch.cat(chunks), examples.targets)


@dataclass(frozen=True)
class FeatureFiles:
    """A folder of features, no larger than `max_bytes`: those that were used longest ago go first.

    A file's name is a digest of all that its content follows from: `backbone` (the digest of the frozen part, which
    includes the scaling of inputs), the very inputs, and how they were computed.
    """

    folder: Path
    backbone: str
    max_bytes: int

    def name(self, inputs: Tensor, device: torch.device) -> str:
        made_by = (self.backbone, torch.__version__, device.type, torch.get_num_threads(), BATCH)
        digest = hashlib.sha256(f"{made_by}|{inputs.dtype}|{tuple(inputs.shape)}|".encode())
        digest.update(inputs.contiguous().numpy().data)
        return f"{digest.hexdigest()}.safetensors"

    def read(self, name: str) -> Tensor | None:
        """None where there is no such file, or it is damaged, and is then made again."""
        path = self.folder / name
        try:
            found: Tensor = load(path.read_bytes())["features"]
            os.utime(path)
        except FileNotFoundError:
            return None
        except Exception as error:  # safetensors' reader has kinds of its own
            log.warning("%s: computed again, since it cannot be read: %s", path, error)
            return None
        return found

    def write(self, name: str, features: Tensor) -> None:
        """Keep what fits; a full disk costs time in later rounds, and nothing else."""
        content = save({"features": features.contiguous()})
        if len(content) > self.max_bytes:
            log.warning("features of %d MB are not kept: features-mb allows less", len(content) >> 20)
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / name, content, mode=0o600)  # they tell of the data
            self._make_room()
        except OSError as error:
            log.warning("%s: features cannot be kept: %s", self.folder, error)

    def _make_room(self) -> None:
        files = sorted(self.folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        total = 0
        for path in files:
            total += path.stat().st_size
            if total > self.max_bytes:
                path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Features:
    """By client, its features under `frozen`, 4 bytes a value; kept in memory, and in `files` where there are some.

    With `augmented` training examples stay as they are: they look different each time, so nothing of them can be kept.
    """

    frozen: nn.Module
    files: FeatureFiles | None = None
    augmented: bool = False
    _kept: dict[int, ClientData] = field(default_factory=dict)

    def __call__(self, client: int, data: ClientData) -> ClientData:
        if client not in self._kept:
            train = data.train if self.augmented else self._of(data.train)
            self._kept[client] = ClientData(train, self._of(data.validation))
        return self._kept[client]

    def _of(self, examples: Examples) -> Examples:
        if self.files is None or not len(examples):
            return features_of(self.frozen, examples)
        name = self.files.name(examples.inputs, next(self.frozen.parameters()).device)
        found = self.files.read(name)
        if found is not None and len(found) == len(examples):
            return Examples(found, examples.targets)
        made = features_of(self.frozen, examples)
        self.files.write(name, made.inputs)
        return made
