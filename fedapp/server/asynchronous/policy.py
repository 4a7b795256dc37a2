"""How many clients are at work, when others are asked, and when the server steps."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from fedapp.aggregation.reply_log import SURPLUS
from fedapp.server.asynchronous.job import Job
from fedapp.server.population.cohort import CohortRule

__all__ = ["BufferPolicy", "CohortPolicy", "Policy", "Refill"]

Refill = Literal["at_once", "after_step"]


@dataclass(frozen=True, kw_only=True)
class Policy(ABC):
    """An update that is s rounds old counts (1 + s)^-`staleness_exponent`, and not at all beyond `max_staleness`. With
    `save_every`, a checkpoint is due within a round after so many good updates."""

    max_staleness: int
    staleness_exponent: float = 0.0
    save_every: int | None = None

    def discount(self, staleness: int) -> float:
        """1 for an update that is not stale."""
        return float((1 + staleness) ** -self.staleness_exponent)

    @abstractmethod
    def said(self) -> str:
        """What the log says before the run."""

    @abstractmethod
    def needed(self, rule: CohortRule, there: int, free: int) -> int:
        """Good updates that end a round; of `there` clients so many are `free` when it begins."""

    @abstractmethod
    def missing(self, rule: CohortRule, needed: int, free: int, at_work: int, draws: int) -> int:
        """How many clients are to be asked now. `draws`: how often this round has asked before."""

    @abstractmethod
    def is_over(self, jobs: Iterable[Job], server_round: int) -> bool:
        """Whether no update is to come in this round, if nobody else can be asked."""

    @abstractmethod
    def too_old(self, staleness: int) -> str:
        """Why such an update is not used."""


@dataclass(frozen=True, kw_only=True)
class CohortPolicy(Policy):
    """A cohort each round, as synchronous rounds have it: who comes too late for one is of no use."""

    max_staleness: int = 0

    def said(self) -> str:
        return "cohorts in virtual time: who comes too late for its round is not used"

    def needed(self, rule: CohortRule, there: int, free: int) -> int:
        return min(free, rule.needed(there))

    def missing(self, rule: CohortRule, needed: int, free: int, at_work: int, draws: int) -> int:
        return 0 if draws else rule.asked(needed, free)

    def is_over(self, jobs: Iterable[Job], server_round: int) -> bool:
        return all(job.server_round < server_round for job in jobs)

    def too_old(self, staleness: int) -> str:
        return SURPLUS


@dataclass(frozen=True, kw_only=True)
class BufferPolicy(Policy):
    """FedBuff (Nguyen et al. 2022): `concurrency` clients are at work, and `buffer_size` good updates make a step."""

    concurrency: int
    buffer_size: int
    refill: Refill = "at_once"

    def said(self) -> str:
        return (
            f"buffered: {self.concurrency} clients at work, a step for every {self.buffer_size} good updates, up to"
            f" {self.max_staleness} steps old"
        )

    def needed(self, rule: CohortRule, there: int, free: int) -> int:
        return self.buffer_size

    def missing(self, rule: CohortRule, needed: int, free: int, at_work: int, draws: int) -> int:
        waits = self.refill == "after_step" and draws and at_work
        return 0 if waits else self.concurrency - at_work

    def is_over(self, jobs: Iterable[Job], server_round: int) -> bool:
        return not any(True for _ in jobs)

    def too_old(self, staleness: int) -> str:
        return f"stale: its model was {staleness} steps old (rounds.max_staleness={self.max_staleness})"
