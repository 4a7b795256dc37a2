"""What the frozen part of a model makes of examples: computed once for each client, not once an epoch."""

from dataclasses import dataclass, field

import torch
from torch import nn

from fedapp.data.shards import ClientData
from fedapp.data.source import Examples

__all__ = ["Features", "features_of"]

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
class Features:
    """By client, its features under `frozen`; kept in memory, where they take 4 bytes a value."""

    frozen: nn.Module
    _kept: dict[int, ClientData] = field(default_factory=dict)

    def __call__(self, client: int, data: ClientData) -> ClientData:
        if client not in self._kept:
            found = ClientData(features_of(self.frozen, data.train), features_of(self.frozen, data.validation))
            self._kept[client] = found
        return self._kept[client]
