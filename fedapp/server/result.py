"""What comes of a run."""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Figures", "Result"]

Figures = dict[str, float | int | None]


@dataclass(frozen=True)
class Result:
    """`failed` is None for a run that came to its end, else why it did not; `state` is the last good model.

    `delivered`: how many clients have kept it.
    """

    state: dict[str, Tensor]
    rounds: int
    stop_reason: str
    failed: str | None
    test: Figures
    final: Figures
    delivered: int = 0
