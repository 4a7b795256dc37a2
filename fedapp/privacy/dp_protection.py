"""A SuperNode's side of DP-SGD: budgets and ledgers, and nothing uncovered leaves it.

What goes to the server: updates made by DP-SGD, numbers of examples rounded up, what was spent, and who declines.
"""

import logging
from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor

from fedapp.common.errors import ConfigError, DataError
from fedapp.common.state_digest import State
from fedapp.privacy.budget import Budget, rounded_up
from fedapp.privacy.protection import Account, Protection, Training
from fedapp.wire.preflight import PreflightReport
from fedapp.wire.reply import ClientReport, PrivacySpent

__all__ = ["DpSgdProtection"]

log = logging.getLogger("flwr")


class DpSgdProtection(Protection):
    """`training` must be DP-SGD at the cost that `budget` knows of."""

    discloses_metrics = False
    spends = True

    def __init__(self, training: Training, budget: Budget) -> None:
        self.training, self.budget = training, budget

    def preflight(self, report: PreflightReport) -> PreflightReport:
        """Counts are rounded up, faults are not told, and there are no moments."""
        counts, faults = [], []
        for client, count, fault in zip(report.clients, report.num_examples, report.faults, strict=True):
            said = "its data does not fit (see the client's log)"
            if count and not fault:
                try:
                    self.budget.delta_of(count)
                except ConfigError as error:  # follows from the config and the rounded count, which are known
                    fault = said = str(error)
            if fault:
                log.error("client %d takes no part: %s", client, fault)
            counts.append(rounded_up(count, self.budget.round_counts_to))
            faults.append(said if fault else "")
        return replace(report, num_examples=tuple(counts), faults=tuple(faults), moments={})

    def pay(self, client: int, server_round: int, num_examples: int, account: Account | None) -> PrivacySpent:
        if account is None:
            raise DataError("there is no ledger to write this training into")
        epsilon = self.budget.pay(account.ledgers(client), account.run, server_round, num_examples)
        cost = self.budget.cost
        return PrivacySpent(cost.noise_multiplier, cost.sample_rate, epsilon, self.budget.delta_of(num_examples))

    def disclosed(self, report: ClientReport) -> ClientReport:
        """No metric, count or time: none of them is covered."""
        steps = report.steps if report.rejected is None else 0
        return ClientReport(report.client, rejected=report.rejected, steps=steps, privacy=report.privacy)

    def update(self, update: State, parameters: Collection[str], num_examples: int) -> dict[str, Tensor]:
        """Buffers are not covered by the noise. A model that DP-SGD takes has none that training changes."""
        return {key: value if key in parameters else torch.zeros_like(value) for key, value in update.items()}

    def failure(self, client: int, error: Exception) -> ClientReport:
        """Even the kind of an error may tell of data."""
        log.error("client %d failed", client, exc_info=error)
        return ClientReport(client, rejected="failed (see the client's log)")
