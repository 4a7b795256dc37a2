"""One client at work: what it was asked, and when."""

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Job"]


@dataclass(frozen=True)
class Job:
    """`number` counts a run's jobs. `server_round` is the one in which the client was asked, with whose model it began.
    Seconds are since the run began, virtual or not. `ends_at`: when it is over, where that is known. `sent`: a message
    goes out; `answers`: its reply counts. One without is of a client that vanishes. `free_at`: of a late one, when its
    client is at work no more, where that is known."""

    number: int
    client: int
    server_round: int
    asked_at: float
    ends_at: float | None = None
    sent: bool = True
    answers: bool = True
    free_at: float | None = None

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)
