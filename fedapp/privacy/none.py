"""privacy=none: plain local training. Data stays with its owner; updates are not protected against the server."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fedapp.common.errors import FedappError, told
from fedapp.common.raised_at import raised_at
from fedapp.common.state_digest import State
from fedapp.config import Config
from fedapp.learning.build import Parts, build_training
from fedapp.privacy.limits import OwnLimits
from fedapp.privacy.option import PrivacyOption
from fedapp.privacy.protection import Account, Protection, Training
from fedapp.wire.preflight import PreflightReport
from fedapp.wire.reply import ClientReport, PrivacySpent

__all__ = ["NoPrivacy"]

log = logging.getLogger("flwr")


@dataclass(frozen=True)
class NoPrivacy(PrivacyOption):
    discloses_metrics = True
    spends = False

    def check_site(self, limits: OwnLimits, data: Mapping[str, Any]) -> None:
        """Nothing depends on how data is read."""

    def protection(self, config: Config, parts: Parts, limits: OwnLimits, *, on_device: bool) -> Protection:
        training = build_training(config, parts, limits.max_seconds, limits.max_steps)
        return Unprotected(training, on_device=on_device, check_work=training.check_work)


class Unprotected(Protection):
    """Everything is said as it is, but on devices the text of unforeseen errors, which may hold data."""

    discloses_metrics = True
    spends = False

    def __init__(
        self,
        training: Training,
        *,
        on_device: bool = False,
        check_work: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.training, self._on_device, self._check_work = training, on_device, check_work

    def check_work(self, num_examples: int) -> None:
        self._check_work(num_examples)

    def preflight(self, report: PreflightReport) -> PreflightReport:
        return report

    def pay(self, client: int, server_round: int, num_examples: int, account: Account | None) -> PrivacySpent | None:
        return None

    def disclosed(self, report: ClientReport) -> ClientReport:
        return report

    def update(self, update: State, parameters: Collection[str], num_examples: int) -> dict[str, Tensor]:
        return dict(update)

    def failure(self, client: int, error: Exception) -> ClientReport:
        log.error("client %d failed", client, exc_info=error)
        if not isinstance(error, FedappError):
            kind = f"{type(error).__name__} (see the client's log)"
            return ClientReport(client, rejected=kind if self._on_device else raised_at(error))
        return ClientReport(client, rejected=told(error, self._on_device))
