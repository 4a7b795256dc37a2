"""Clip each example's gradient so that rounding carries none over the bound, whatever model a server has chosen.

What is added up is the very tensor whose norm was measured: a second backward pass would round in another way, and a
model can be made such that its result is many times larger. An example whose norm is not safely finite in float32 is
measured and scaled by itself in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["MOST_ROWS", "OuterProducts", "PerExample", "clipped_sums"]

# Sums of n float32 values are off by at most n * 2^-24 of the sum of their sizes, in whatever order they are added
# (Higham 2002, 4.2). With n examples of norm C the others' sum can so change by 2 * n^2 * 2^-24 * C when one example
# comes or goes: 1.1e-3 * C for 96. Norms, from blocks that are added in float64, are off by 3.1e-5 at most.
MOST_ROWS = 96
SLACK = 2e-3
BLOCK = 1024
LARGEST_SAFE = 1e18  # squares fit into float32, and C divided by it is no subnormal number


@dataclass(frozen=True)
class OuterProducts:
    """A gradient for each of B examples as two factors: of a linear layer, from `left` (B, out) and `right` (B, in)."""

    left: Tensor
    right: Tensor

    def __len__(self) -> int:
        return len(self.left)


PerExample = Tensor | OuterProducts


def clipped_sums(gradients: Sequence[PerExample], max_norm: float) -> list[Tensor]:
    """By parameter, the sum (float64, on the CPU) over B <= `MOST_ROWS` examples of gradients (B, ...), each scaled to
    an L2 norm over all parameters of at most `max_norm`, less `SLACK`. One that is not finite counts as zero."""
    bound = (1 - SLACK) * max_norm
    norms = _over_parameters([_norms(gradient) for gradient in gradients])
    safe = norms <= LARGEST_SAFE  # false for NaN
    factors = torch.where(safe, (bound / norms).clamp(max=1.0), 0.0)
    sums = [_weighted_sum(gradient, factors, safe) for gradient in gradients]
    for row in torch.nonzero(~safe).flatten().tolist():
        _add_alone(sums, [_in_float64(gradient, row) for gradient in gradients], bound)
    return sums


def _norms(gradients: PerExample) -> Tensor:
    """(B,) norms in float64."""
    if isinstance(gradients, OuterProducts):
        return _rows(_double(gradients.left)) * _rows(_double(gradients.right))
    flat = gradients.flatten(1)
    whole = flat.shape[1] // BLOCK * BLOCK
    parts = [_rows(flat[:, whole:])[:, None]]
    if whole:
        parts.append(torch.linalg.vector_norm(flat[:, :whole].reshape(len(flat), -1, BLOCK), dim=2))
    return _rows(_double(torch.cat(parts, 1)))


def _weighted_sum(gradients: PerExample, factors: Tensor, safe: Tensor) -> Tensor:
    """The sum of `safe` examples' gradients, each times its factor."""
    if isinstance(gradients, OuterProducts):
        # The factor goes where it leaves both sides well scaled: alone, either may be too small for float32.
        left, right = (torch.where(safe[:, None], _double(side), 0.0) for side in (gradients.left, gradients.right))
        size = _rows(left)[:, None]
        unit = torch.where(size > 0, left / size, 0.0)
        scaled = right * (size * factors[:, None])
        return (unit.to(gradients.left).T @ scaled.to(gradients.right)).cpu().double()
    flat = gradients.flatten(1)
    if not bool(safe.all()):
        flat = torch.where(safe.to(flat.device)[:, None], flat, 0.0)
    return (factors.to(flat) @ flat).view(gradients.shape[1:]).cpu().double()


def _in_float64(gradients: PerExample, row: int) -> Tensor:
    """One example's gradient."""
    if isinstance(gradients, OuterProducts):
        return torch.outer(_double(gradients.left[row]), _double(gradients.right[row])).cpu()
    return gradients[row].cpu().double()


def _add_alone(sums: Sequence[Tensor], gradient: Sequence[Tensor], bound: float) -> None:
    norm = _over_parameters([_rows(part.flatten()) for part in gradient])
    if bool(torch.isfinite(norm)):
        for total, part in zip(sums, gradient, strict=True):
            total += part * (bound / norm).clamp(max=1.0)


def _over_parameters(norms: Sequence[Tensor]) -> Tensor:
    return _rows(torch.stack(list(norms), -1))


def _rows(values: Tensor) -> Tensor:
    """(B,) L2 norms of (B, n), or the norm of (n,)."""
    norms: Tensor = torch.linalg.vector_norm(values, dim=-1)
    return norms


def _double(values: Tensor) -> Tensor:
    """In float64, which Apple's GPUs do not have."""
    return (values.cpu() if values.device.type == "mps" else values).double()
