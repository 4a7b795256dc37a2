"""Scale a vector down to an L2 norm, so that no rounding carries it above."""

import math

import torch
from torch import Tensor

__all__ = ["norm_of", "within"]

SLACK = 1e-9  # of a norm in float64, as a share: sums of n squares are off by n * 2^-53 at most (Higham 2002, 4.2)
SMALL = 1e-30
ROUNDED = 2.0**-21  # of a float32, as a share: of the factor, and of each product


def norm_of(vector: Tensor) -> float:
    """In float64; infinite where a value is not finite, so that it is above any limit."""
    norm = float(torch.linalg.vector_norm(vector, dtype=torch.float64))
    return norm if math.isfinite(norm) else math.inf


def within(vector: Tensor, largest: float) -> Tensor:
    """`vector`, or a shorter one of its direction and dtype whose norm is `largest` at most. What is not finite becomes
    zeros: a client that sends it contributes nothing."""
    norm, dtype = norm_of(vector), vector.dtype
    if norm <= largest * (1 - SLACK):
        return vector
    if not math.isfinite(norm):
        if not bool(torch.isfinite(vector).all()):
            return torch.zeros_like(vector)
        scaled = vector.double() / float(vector.abs().max())  # so large that its squares are not finite
        vector, norm = scaled, norm_of(scaled)
    factor = largest * (1 - ROUNDED) / norm
    # A factor that is no normal float32 would be rounded to far fewer digits.
    shorter = vector.to(dtype) * factor if factor > SMALL else (vector.double() * factor).to(dtype)
    if dtype == torch.float32 and factor > SMALL and largest > SMALL:
        return shorter  # factor and products are rounded by 2^-24 of themselves each, and what underflows by far less
    # Nothing, where its dtype has no such numbers.
    return shorter if norm_of(shorter) <= largest * (1 - SLACK) else torch.zeros_like(shorter)
