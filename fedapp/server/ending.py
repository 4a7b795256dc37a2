"""How a run ends: what happens after its last round, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fedapp.server.outcome import Metrics

__all__ = ["Ending", "Result"]


@dataclass(frozen=True)
class Ending:
    """What happens after the last round: every client evaluates the model (`evaluate`), or stores it (`deliver`). That
    is the last one, or with `best` the best one by the stop rules' metric."""

    evaluate: bool = True
    deliver: bool = False
    best: bool = False


@dataclass(frozen=True)
class Result:
    """`failed` is None for a run that came to its end, else why it did not; `state` is the last good model, or the best
    one if that is the result. `best`: the best one, where anybody has data to tell.

    `test` and `final`: its metrics on the server's data, and on the clients. `delivered`: how many clients store it.
    """

    state: Mapping[str, Tensor]
    rounds: int
    stop_reason: str
    failed: str | None
    test: Metrics
    final: Metrics
    delivered: int = 0
    best: Mapping[str, Tensor] | None = None
