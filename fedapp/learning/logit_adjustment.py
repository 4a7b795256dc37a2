"""Logits adjusted by how frequent each class is at a client, while it trains."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LogitAdjustment"]


@dataclass(frozen=True)
class LogitAdjustment:
    """Adds `tau` times the log of each class's frequency among a client's examples to the logits of its training (Menon
    et al., "Long-tail learning via logit adjustment", ICLR 2021; by each client's own frequencies: Zhang et al.,
    "Federated Learning with Label Distribution Skew via Logits Calibration", ICML 2022).

    What a client's frequencies alone explain is then not learnt by the model: a client that has one class of two says
    next to nothing of the other one. With `tau` 1 the model's own logits are those of classes that are as frequent as
    each other. A class counts one example more than there are, so that none has the frequency 0 (Laplace's rule of
    succession).
    """

    tau: float
    num_classes: int

    def __call__(self, targets: Tensor) -> Tensor:
        """(classes,) that are added to the logits; `targets` (n,) int64 are all that the client trains on."""
        counts = torch.bincount(targets, minlength=self.num_classes) + 1.0
        return self.tau * (counts / counts.sum()).log()
