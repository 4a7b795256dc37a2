"""A SuperNode's side of client-level DP: its weight is its own count's, and nothing but the update leaves it."""

import logging
from collections.abc import Callable, Collection
from dataclasses import replace

import torch
from torch import Tensor

from fedapp.common.errors import DataError
from fedapp.common.state_digest import State
from fedapp.learning.task import Evaluation
from fedapp.privacy.budget import Budget
from fedapp.privacy.client_level.metric_sums import MetricSums
from fedapp.privacy.protection import Account, Protection, Training
from fedapp.updates.steps import scalar_key
from fedapp.wire.preflight import PreflightReport
from fedapp.wire.reply import ClientReport, PrivacySpent

__all__ = ["ClientProtection", "PayingProtection", "TwofoldProtection"]

log = logging.getLogger("flwr")

Weigh = Callable[[int], float]


def _unchanged(value: Tensor) -> Tensor:
    """Zeros; `value` itself, which may lie in one piece with the others, where it has nothing else."""
    return torch.zeros_like(value) if torch.count_nonzero(value) else value


class ClientProtection(Protection):
    """`weigh`: what an update is multiplied by, from the client's own number of examples. `metrics`: what of its
    validation split is summed under noise."""

    discloses_metrics = False
    spends = False

    def __init__(
        self,
        training: Training,
        weigh: Weigh,
        check_work: Callable[[int], None] = lambda _: None,
        metrics: MetricSums | None = None,
    ) -> None:
        self.training, self._weigh, self._check_work, self._metrics = training, weigh, check_work, metrics

    def check_work(self, num_examples: int) -> None:
        self._check_work(num_examples)

    def log_fault(self, client: int, error: Exception) -> None:
        """`preflight` does, without saying whose it is."""

    def preflight(self, report: PreflightReport) -> PreflightReport:
        """That its clients are there. Counts, faults and digests would tell of one client alone."""
        for fault in filter(None, report.faults):  # whose is not said: a simulation's log is in its run directory
            log.error("a client will contribute nothing: %s", fault)
        clients = len(report.clients)
        return replace(report, num_examples=(1,) * clients, faults=("",) * clients, moments={}, data=())

    def pay(self, client: int, server_round: int, num_examples: int, account: Account | None) -> PrivacySpent | None:
        return None

    def disclosed(self, report: ClientReport) -> ClientReport:
        return ClientReport(report.client, rejected=report.rejected, privacy=report.privacy)

    def update(self, update: State, parameters: Collection[str], num_examples: int) -> dict[str, Tensor]:
        """Times the client's weight. What is not trained has no noise, so it does not change."""
        weight = self._weigh(num_examples)
        weighted = {key: update[key] if weight == 1 else update[key] * weight for key in update if key in parameters}
        return {key: weighted[key] if key in weighted else _unchanged(value) for key, value in update.items()}

    def measured(self, judge: Callable[[], Evaluation | None]) -> dict[str, Tensor]:
        if self._metrics is None:
            return {}
        own = self._metrics.contribution(judge())
        return {scalar_key(name): torch.tensor([value], dtype=torch.float32) for name, value in own.items()}

    def failure(self, client: int, error: Exception) -> ClientReport:
        log.error("a client failed", exc_info=error)
        return ClientReport(client, rejected="failed (see the client's log)")


class PayingProtection(ClientProtection):
    """The same where the noise is the clients' own, so that each pays from a ledger of its own. `budget`: with its
    delta given, which depends on no client's data. That a client failed would be told without noise, and a server can
    choose a model with which training fails just where the data has some property; so a failed client sends zeros with
    its noise."""

    spends = True
    hides_failures = True
    unit = ".clients"

    def __init__(
        self, training: Training, weigh: Weigh, budget: Budget, check_work: Callable[[int], None] = lambda _: None
    ) -> None:
        super().__init__(training, weigh, check_work)
        self.budget = budget

    def pay(self, client: int, server_round: int, num_examples: int, account: Account | None) -> PrivacySpent:
        if account is None:
            raise DataError("there is no ledger to write this training into")
        epsilon = self.budget.pay(account.ledgers(client), account.run, server_round, 1)
        cost = self.budget.cost
        return PrivacySpent(cost.noise_multiplier, cost.sample_rate, epsilon, self.budget.delta_of(1))


class TwofoldProtection(ClientProtection):
    """Single examples are protected, too, by `inner`: it trains, and pays from the client's own ledger. What that says
    of a client stays with it."""

    spends = True

    def __init__(self, inner: Protection, weigh: Weigh) -> None:
        super().__init__(inner.training, weigh, inner.check_work)
        self._inner = inner
        self.unit = inner.unit  # type: ignore[misc]

    def pay(self, client: int, server_round: int, num_examples: int, account: Account | None) -> PrivacySpent | None:
        self._inner.pay(client, server_round, num_examples, account)
        return None

    def update(self, update: State, parameters: Collection[str], num_examples: int) -> dict[str, Tensor]:
        return super().update(self._inner.update(update, parameters, num_examples), parameters, num_examples)
