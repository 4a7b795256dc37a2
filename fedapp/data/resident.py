"""Clients' examples that stay on the GPU between messages, so that no batch has to go there again."""

from dataclasses import dataclass, field

import torch

from fedapp.data.shards import ClientData

__all__ = ["Resident"]

MOST_BYTES = 2 << 30  # of one process; several share a GPU


@dataclass
class Resident:
    """By client, its data on `device`. What comes after `most_bytes` are full stays where it is, and goes there batch
    by batch; on the CPU nothing is moved or kept."""

    device: torch.device
    most_bytes: int = MOST_BYTES
    _kept: dict[int, ClientData] = field(default_factory=dict)
    _bytes: int = 0

    def __call__(self, client: int, data: ClientData) -> ClientData:
        if self.device.type == "cpu":
            return data
        if (found := self._kept.get(client)) is not None:
            return found
        size = data.train.nbytes + data.validation.nbytes
        if self._bytes + size > self.most_bytes:
            return data
        self._bytes += size
        self._kept[client] = ClientData(data.train.to(self.device), data.validation.to(self.device))
        return self._kept[client]
