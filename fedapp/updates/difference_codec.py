"""The difference of two models in a few bits a value, which everybody decodes to the same bits.

Values of a tensor are rounded at random, without bias, to whole multiples of a share of the largest value of their
block of 256 (QSGD, Alistarh et al. 2017). There is no rotation: what decodes must be elementwise arithmetic, whose
result is the same on every machine, and products of matrices are not. A difference of 0 stays 0.

What is no parameter is not rounded: a variance that is small beside others of its block would become negative, and
nothing that trains would put it right. Of it the new values travel, where they are new.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedapp.common.state_digest import State
from fedapp.updates.packing import pack_bits, packed_bytes, unpack_bits

__all__ = ["DifferenceCodec", "NoDifferenceError"]

BLOCK = 256
LARGEST, SMALLEST = 2.0**20, 1e-30  # of a difference; of a scale that is divided by


class NoDifferenceError(ValueError):
    """Two models whose difference cannot be encoded."""


@dataclass(frozen=True)
class DifferenceCodec:
    """`bits` of each value: 8 or 4. `exact`: names of tensors that are not rounded; others may be among them."""

    bits: int
    exact: frozenset[str] = frozenset()

    def encode(self, before: State, after: State, seed: int) -> Tensor:
        """As one vector of bytes, uint8 (m,): a 1 for each exact tensor that is new and a 0 for one that is not, the
        new ones' values, the scales of all blocks, and the levels of all values. Raises NoDifferenceError for models
        that differ in more than finite floats."""
        if before.keys() != after.keys():
            raise NoDifferenceError("other tensors")
        random = np.random.Generator(np.random.SFC64(seed))
        new_ones, exact = list[int](), list[NDArray[np.uint8]]()
        scales, levels = list[NDArray[np.float32]](), list[NDArray[np.uint8]]()
        for name, old in before.items():
            new = after[name]
            if new.shape != old.shape or new.dtype != old.dtype:
                raise NoDifferenceError(f"another form of {name}")
            if not old.is_floating_point():
                if not torch.equal(new, old):
                    raise NoDifferenceError(f"{name} has changed, which is no float")
                continue
            if name in self.exact:
                is_new = not np.array_equal(content := _bytes(new), _bytes(old))
                if is_new and not bool(new.isfinite().all()):
                    raise NoDifferenceError(f"{name} is not finite")
                new_ones.append(is_new)
                exact += [content] if is_new else []
                continue
            values = (new.detach().cpu() - old.detach().cpu()).float().reshape(-1).numpy()
            if not (np.abs(values) <= LARGEST).all():
                raise NoDifferenceError(f"a difference of {name} is not finite, or too large")
            blocks = _blocks(values)
            scale = np.abs(blocks).max(1)
            shares = blocks * (self._top / np.maximum(scale, SMALLEST))[:, None].astype(np.float32)
            whole = np.floor(shares + random.random(shares.shape, dtype=np.float32))
            scales.append(scale)
            levels.append((np.clip(whole, -self._top, self._top) + self._top).reshape(-1)[: len(values)].astype("u1"))
        head = np.concatenate(scales or [np.zeros(0, np.float32)]).astype("<f4").view(np.uint8)
        packed = pack_bits(np.concatenate(levels or [np.zeros(0, np.uint8)]), self.bits)
        return torch.from_numpy(np.concatenate([np.array(new_ones, np.uint8), *exact, head, packed]))

    def apply(self, before: State, packed: Tensor) -> dict[str, Tensor]:
        """The model after a difference. Raises ValueError for what is no difference of models of this form."""
        floats = {name: value for name, value in before.items() if value.is_floating_point()}
        exact = {name: value for name, value in floats.items() if name in self.exact}
        rounded = [value for name, value in floats.items() if name not in exact]
        blocks, size = sum(-(-value.numel() // BLOCK) for value in rounded), sum(value.numel() for value in rounded)
        flags = packed.numpy()[: len(exact)] if packed.dtype == torch.uint8 and packed.ndim == 1 else np.zeros(0, "u1")
        new_ones = {name: value for (name, value), flag in zip(exact.items(), flags, strict=False) if flag}
        start = len(exact) + sum(value.numel() * value.element_size() for value in new_ones.values())
        needed = start + 4 * blocks + packed_bytes(size, self.bits)
        if packed.dtype != torch.uint8 or packed.shape != (needed,):
            raise ValueError(f"bad difference: {packed.dtype} {tuple(packed.shape)}, and it takes {needed} bytes")
        if (flags > 1).any():
            raise ValueError(f"bad difference: a mark of {flags.max()} for a new tensor, which is 0 or 1")
        known = exact | _read(new_ones, packed.numpy()[len(exact) : start])
        content = packed.numpy()[start:]
        scales = np.frombuffer(content[: 4 * blocks].tobytes(), "<f4").astype(np.float32)
        for scale in scales[~((scales >= 0) & (scales <= LARGEST))][:1]:
            raise ValueError(f"bad difference: a scale of {scale:g}, which no difference has")
        levels = unpack_bits(content[4 * blocks :], self.bits, size, "u1")
        if size and (highest := int(levels.max())) > 2 * self._top:
            raise ValueError(f"bad difference: a level of {highest}, and the highest is {2 * self._top}")
        steps, found = scales / np.float32(self._top), levels.astype(np.float32) - np.float32(self._top)
        return self._added(before, known, steps, found)

    @property
    def _top(self) -> int:
        return int(2 ** (self.bits - 1)) - 1

    @staticmethod
    def _added(
        before: State, known: State, steps: NDArray[np.float32], levels: NDArray[np.float32]
    ) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        block = start = 0
        for name, old in before.items():
            if name in known or not old.is_floating_point():
                found[name] = known.get(name, old)
                continue
            count, size = -(-old.numel() // BLOCK), old.numel()
            values = (_blocks(levels[start : start + size]) * steps[block : block + count, None]).reshape(-1)[:size]
            found[name] = old + torch.from_numpy(values).reshape(old.shape).to(old.dtype)
            block, start = block + count, start + size
        return found


def _bytes(value: Tensor) -> NDArray[np.uint8]:
    """The values of a tensor as they lie in memory."""
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _read(old: State, content: NDArray[np.uint8]) -> dict[str, Tensor]:
    """Tensors of the form of `old`, whose bytes follow each other in `content`. Raises ValueError."""
    found: dict[str, Tensor] = {}
    start = 0
    for name, value in old.items():
        size = value.numel() * value.element_size()
        own = torch.from_numpy(content[start : start + size].copy())
        found[name] = own.view(value.dtype).reshape(value.shape)
        if not bool(found[name].isfinite().all()):
            raise ValueError(f"bad difference: {name} is not finite")
        start += size
    return found


def _blocks(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) as (b, 256), filled up with zeros."""
    count = -(-len(values) // BLOCK)
    full = np.zeros(count * BLOCK, np.float32)
    full[: len(values)] = values
    return full.reshape(count, BLOCK)
