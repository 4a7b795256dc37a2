"""Scale a vector down to an L2 norm, so that no rounding carries it above."""

import math

import torch
from torch import Tensor

__all__ = ["norm_of", "within"]

SLACK = 1e-9  # of a norm in float64, as a share: sums of n squares are off by n * 2^-53 at most (Higham 2002, 4.2)
SMALL = 1e-30
ROW = 256
ROUNDED = 2.0**-21  # of a float32, as a share: of the factor, and of each product


def norm_of(vector: Tensor) -> float:
    """In float64; infinite where a value is not finite, so that it is above any limit."""
    norm = float(torch.linalg.vector_norm(vector, dtype=torch.float64))
    return norm if math.isfinite(norm) else math.inf


def within(vector: Tensor, largest: float, *, in_place: bool = False) -> Tensor:
    """`vector`, or a shorter one of its direction and dtype whose norm is `largest` at most. What is not finite becomes
    zeros: a client that sends it contributes nothing. `in_place`: `vector` may be overwritten."""
    dtype = vector.dtype
    norm, error = _quick_norm(vector) if dtype == torch.float32 and largest > SMALL else (norm_of(vector), SLACK)
    if norm <= largest * (1 - error):
        return vector
    if not math.isfinite(norm):
        if not bool(torch.isfinite(vector).all()):
            return torch.zeros_like(vector)
        scaled = vector.double() / float(vector.abs().max())  # so large that its squares are not finite
        vector, norm, in_place = scaled, norm_of(scaled), False
    # Twice what a value of half precision is rounded by, which is more than all else.
    factor = largest * (1 - max(ROUNDED, torch.finfo(dtype).eps) - error) / norm
    # A factor that is no normal float32 would be rounded to far fewer digits.
    if vector.dtype == torch.float32 and factor > SMALL and largest > SMALL:
        # Factor and products are rounded by 2^-24 of themselves each, and what underflows by far less.
        return vector.mul_(factor) if in_place else vector * factor
    shorter = vector.to(dtype) * factor if factor > SMALL else (vector.double() * factor).to(dtype)
    # Nothing, where its dtype has no such numbers.
    return shorter if norm_of(shorter) <= largest * (1 - SLACK) else torch.zeros_like(shorter)


def _quick_norm(vector: Tensor) -> tuple[float, float]:
    """Of float32 values, and how far it may be off, as a share: squares are summed in float32, row by row, without a
    copy in float64. A sum of n squares is off by n * 2^-24 at most, in whatever order (Higham 2002, 4.2); squares that
    underflow are lost, which is nothing beside a norm above `SMALL`."""
    rows = len(vector) // ROW
    if not rows:
        return norm_of(vector), SLACK
    split = rows * ROW
    norms = torch.linalg.vector_norm(vector[:split].view(rows, ROW), dim=1)
    rest = torch.linalg.vector_norm(vector[split:], dtype=torch.float64)
    norm = math.hypot(float(torch.linalg.vector_norm(norms, dtype=torch.float64)), float(rest))
    return (norm if math.isfinite(norm) else math.inf), ROW * 2.0**-24
