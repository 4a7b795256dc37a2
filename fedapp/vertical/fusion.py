"""How the parties' embeddings become one input of the top model, and how they travel."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fedapp.common.errors import ConfigError
from fedapp.vertical.masking import decoded, encoded, masked
from fedapp.vertical.party_error import PartyError

__all__ = ["Concat", "Fusion", "Sum"]

ALL = ""  # in place of a party's name: the sum over all parties without labels


class Fusion(ABC):
    """`masked`: the label party sees the sum of the others' embeddings and no single one. `additive`: the fused
    embedding is as wide as one party's."""

    masked: bool
    additive: ClassVar[bool]

    def width(self, embedding: int, parties: int) -> int:
        """Of the fused embedding, where each party's has `embedding` values."""
        return embedding if self.additive else embedding * parties

    def check_parties(self, others: Sequence[str]) -> None:  # noqa: B027 (most take any)
        """Raises ConfigError where these parties without labels cannot have what this promises."""

    def packed(self, values: Tensor, me: str, channels: Mapping[str, bytes], number: int) -> bytes:
        """One party's embeddings as they travel. `channels`: the secrets shared with the other parties without labels;
        `number`: of the exchange, which is never used twice."""
        if not self.masked:
            return values.detach().float().numpy().tobytes()
        return masked(encoded(values), me, channels, number).tobytes()

    def unpacked(self, payloads: Mapping[str, bytes], shape: tuple[int, ...]) -> dict[str, Tensor]:
        """By party, or for all of them together, embeddings of `shape`. Raises PartyError for another length."""
        size = 8 if self.masked else 4
        expected = size * int(np.prod(shape))
        for name, content in payloads.items():
            if len(content) != expected:
                raise PartyError(
                    "wrong length", f"{name} sent {len(content)} bytes of embeddings in place of {expected}"
                )
        if not self.masked:
            return {name: _floats(content, shape) for name, content in sorted(payloads.items())}
        total = np.zeros(expected // size, np.uint64)
        for content in payloads.values():
            total += np.frombuffer(content, np.uint64)
        return {ALL: decoded(total, shape)}

    def gradient_of(self, party: str, gradients: Mapping[str, Tensor]) -> Tensor:
        """The gradient with respect to one party's embedding, out of those of what `unpacked` gave."""
        return gradients[ALL if self.masked else party]

    @abstractmethod
    def join(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The fused embedding of the parts by name: the label party's own, and what `unpacked` gave."""


def _floats(content: bytes, shape: tuple[int, ...]) -> Tensor:
    values = torch.from_numpy(np.frombuffer(content, np.float32).copy()).view(shape)
    if not values.isfinite().all():
        raise PartyError("out of range", "an embedding or a gradient is not finite; lower optimizer.lr")
    return values


@dataclass(frozen=True)
class Sum(Fusion):
    """The sum of the parties' embeddings; `masked`: summed under masks, in fixed point."""

    masked: bool = True
    additive: ClassVar[bool] = True

    def check_parties(self, others: Sequence[str]) -> None:
        if self.masked and len(others) < 2:
            raise ConfigError(
                f"vertical.fusion.masked=true: {', '.join(others) or 'no party'} is the only party without labels, and"
                " a mask hides nothing where there is one: its embeddings are the label party's to see. Set"
                " vertical.fusion.masked=false to accept that"
            )

    def join(self, parts: Mapping[str, Tensor]) -> Tensor:
        first, *rest = (parts[name] for name in sorted(parts))
        for part in rest:
            first = first + part
        return first


@dataclass(frozen=True)
class Concat(Fusion):
    """The parties' embeddings side by side, in the order of their names. The label party sees each of them."""

    masked: ClassVar[bool] = False  # type: ignore[misc]
    additive: ClassVar[bool] = False

    def join(self, parts: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([parts[name] for name in sorted(parts)], 1)
