"""What of a client's work leaves its SuperNode: how it trains, what it pays, and what it says."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedapp.common.state_digest import State
from fedapp.learning.task import Evaluation
from fedapp.learning.training import TrainingResult
from fedapp.privacy.ledger import Ledger
from fedapp.wire.preflight import PreflightReport
from fedapp.wire.reply import ClientReport, PrivacySpent

__all__ = ["Account", "Declined", "Protection", "Training"]

log = logging.getLogger("flwr")

Training = Callable[..., TrainingResult]  # (model, examples, *, seed, lr_factor)


class Declined(Exception):  # noqa: N818 (no error: it is the client's right)
    """One more round would cost more than the client may spend."""


@dataclass(frozen=True)
class Account:
    """Where clients write what a training costs them in privacy: each one's ledger, and the name of this run."""

    run: str
    ledgers: Callable[[int], Ledger]


class Protection(ABC):
    """`training` trains a client's model in place. `discloses_metrics`: its losses and metrics may leave it. `spends`:
    it pays for what it sends, and keeps a ledger of that. `unit`: ends the name of the ledger's file, one for each unit
    of privacy, since what they count does not add up. `hides_failures`: once a training is paid for, nobody learns
    whether it failed."""

    discloses_metrics: ClassVar[bool]
    spends: ClassVar[bool]
    unit: ClassVar[str] = ""
    hides_failures: ClassVar[bool] = False
    training: Training

    def check_work(self, num_examples: int) -> None:  # noqa: B027 (public settings may have said it already)
        """Raise ConfigError where a training on so many examples takes more steps than the operator allows."""

    def log_fault(self, client: int, error: Exception) -> None:
        """Why a client cannot take part, on its own side."""
        log.error("client %d takes no part: %s", client, error)

    @abstractmethod
    def preflight(self, report: PreflightReport) -> PreflightReport:
        """What of a preflight report leaves the SuperNode."""

    @abstractmethod
    def pay(self, client: int, server_round: int, num_examples: int, account: Account | None) -> PrivacySpent | None:
        """Book a training before it begins; once this has returned it counts as spent. Raises Declined where it would
        cost too much."""

    @abstractmethod
    def disclosed(self, report: ClientReport) -> ClientReport:
        """What of a client's report leaves the SuperNode."""

    @abstractmethod
    def update(self, update: State, parameters: Collection[str], num_examples: int) -> dict[str, Tensor]:
        """What of an update, made of so many examples, leaves the SuperNode. `parameters`: what of the model is
        trained."""

    def measured(self, judge: Callable[[], Evaluation | None]) -> dict[str, Tensor]:
        """What is summed beside the update, by `updates.steps.scalar_key`. `judge`: evaluates the model that was sent
        on the client's validation split."""
        return {}

    @abstractmethod
    def failure(self, client: int, error: Exception) -> ClientReport:
        """A rejection, and the whole reason in the client's log."""
