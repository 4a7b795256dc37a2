"""A SuperNode's side under differential privacy: budgets and ledgers, and nothing else leaves it.

What goes to the server: updates made by DP-SGD, numbers of examples rounded up, what was spent, and who declines.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fedapp.client.site import Kept, Site, State
from fedapp.common.errors import ConfigError, DataError
from fedapp.privacy.budget import Budget, Declined, rounded_up
from fedapp.wire.instruction import Instruction
from fedapp.wire.preflight import PreflightReport
from fedapp.wire.reply import ClientReport, Privacy

__all__ = ["PrivateSite"]

log = logging.getLogger("flwr")


class PrivateSite(Site):
    """`training` must be DP-SGD at the cost that `budget` knows of."""

    def __init__(self, *, budget: Budget, **options: Any) -> None:
        super().__init__(**options)
        self.budget = budget

    def census(self, clients: Sequence[int]) -> PreflightReport:
        """As without privacy, but counts are rounded up, faults are not told, and there are no moments."""
        found = super().census(clients)
        counts, faults = [], []
        for client, count, fault in zip(found.clients, found.num_examples, found.faults, strict=True):
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
        return replace(found, num_examples=tuple(counts), faults=tuple(faults), moments={})

    def _report(self, client: int, state: State, kept: Kept, server_round: int) -> ClientReport:
        """Nothing: no figure of the validation split is covered."""
        try:
            self.load(client, state, kept, server_round)
        except Exception as error:
            return self._failed(client, error)
        return ClientReport(client)

    def _train_one(
        self, client: int, instruction: Instruction, state: State, template: State, kept: Kept
    ) -> tuple[ClientReport, dict[str, Tensor]]:
        try:
            if (account := kept.account) is None:
                raise DataError("there is no ledger to write this training into")
            count = len(self.shards.of(client).train)
            ledger = account.ledgers(client)
            epsilon = self.budget.pay(ledger, account.run, instruction.server_round, count)
        except Declined:
            return ClientReport(client, declined=True), {}
        except Exception as error:
            return self._failed(client, error), {}
        report, update = super()._train_one(client, instruction, state, template, kept)
        cost = self.budget.cost
        spent = Privacy(cost.noise_multiplier, cost.sample_rate, epsilon, self.budget.delta_of(count))
        if report.rejected is not None:
            return ClientReport(client, rejected=report.rejected, privacy=spent), {}
        return ClientReport(client, steps=report.steps, privacy=spent), self._only_parameters(update)

    def _only_parameters(self, update: dict[str, Tensor]) -> dict[str, Tensor]:
        """Buffers are not covered by the noise. A model that DP-SGD takes has none that training changes."""
        names = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        return {key: value if key in names else torch.zeros_like(value) for key, value in update.items()}

    def _failed(self, client: int, error: Exception) -> ClientReport:
        """Even the kind of an error may tell of data."""
        log.error("client %d failed", client, exc_info=error)
        return ClientReport(client, rejected="failed (see the client's log)")
