"""Federated averaging in which the server opens the sum of a cohort's updates, and sees no single one.

Four stages a round, each a message to every SuperNode with clients that are still in it: keys, shares, masked vectors,
unmasking. Who drops out at a stage is rejected with it; the sum of those who remain is opened where enough of them are
left, and otherwise the round changes nothing and says why.
"""

import math
from collections.abc import Iterable, Mapping
from logging import INFO, WARNING
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid

from fedapp.aggregation.secaggplus.collector import Collector, Unmasked
from fedapp.aggregation.secaggplus.metrics import decode
from fedapp.aggregation.secaggplus.protocol_error import ProtocolError
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.secaggplus.stages import Stages, Timeouts
from fedapp.common.errors import FederationError
from fedapp.common.state_digest import state_sha256
from fedapp.server.exchange import Late
from fedapp.server.strategy import Ask, State, WeightedFedAvg
from fedapp.wire.records import state_to_arrays
from fedapp.wire.reply import ClientReport

__all__ = ["SecureFedAvg"]


class SecureFedAvg(WeightedFedAvg):
    """`figures`: by name, the largest value of each figure that goes along with the updates."""

    def __init__(
        self, *arguments: Any, settings: Settings, timeouts: Timeouts, figures: Mapping[str, float], **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.settings, self.timeouts, self.figures = settings, timeouts, dict(figures)

    def summary(self) -> None:
        """Log what this strategy will do, and a threshold that trusts the server with more than it must."""
        super().summary()
        cohort = self.cohort_size
        degree, needed = self.settings.degree(cohort), self.settings.needed(cohort)
        log(INFO, "Secure aggregation: each with %d neighbours, %d of %d open its part", degree, needed, degree + 1)
        if 2 * needed <= degree + 1:
            log(
                WARNING,
                "secure_aggregation.threshold=%d: at most half of the %d who hold a client's shares: a server that"
                " tells them different things could collect both of its secrets",
                *(needed, degree + 1),
            )

    def train(
        self,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        ask: Ask,
        grid: Grid,
        late: Iterable[Late] = (),
    ) -> ArrayRecord | None:
        """One round; None where nothing could be opened."""
        self._begin(server_round, arrays)
        self.outcome.add_late(late)
        template = {key: value for key, value in self._state.items() if value.is_floating_point()}
        length = sum(value.numel() for value in template.values())
        collector = Collector(
            self.settings,
            run=str(config["run"]),
            server_round=server_round,
            model=state_sha256(self._state),
            weights=self.outcome.weights,
            length=length + 2 * len(self.figures),
            minimum=self.min_clients,
        )
        mean: State | None = None
        try:
            stages = Stages(
                collector,
                ask,
                self.outcome,
                self.roster.nodes,
                self.timeouts,
                wanted=self.cohort_size,
                lr_factor=self.client_lr(server_round),
                message_ttl=self.message_ttl,
            )
            mean = self._mean(stages(arrays), collector, template)
        except ProtocolError as error:
            self._nothing(collector, str(error))
        self._close(self.outcome)
        if mean is None:
            return None
        self._state = self.server_optimizer.step(self._state, mean, self.server_lr(server_round))
        self.outcome.changed = True
        return state_to_arrays(self._state)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        raise FederationError("secure aggregation takes four messages a round: call `train`, as fedapp's own loop does")

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        raise FederationError("secure aggregation takes four messages a round: call `train`, as fedapp's own loop does")

    def _mean(self, opened: Unmasked, collector: Collector, template: State) -> State:
        """The weighted mean update over the survivors, as float64. Raises ProtocolError for one that is too large."""
        members = [collector.view.by_client[client] for client in opened.survivors]
        weight = math.fsum(member.weight for member in members) * len(collector.view.members)
        if weight <= 0:
            raise ProtocolError("too few", "those who remain have no weight")
        for share in opened.shares_refused:
            log(WARNING, "round %d: %s", self.outcome.server_round, share)
        mean = torch.from_numpy(opened.total.astype(np.float64) * (self.settings.step / weight))
        found, start = {}, 0
        for key, value in template.items():
            found[key] = mean[start : start + value.numel()].reshape(value.shape)
            start += value.numel()
        self._screen(found, len(members), start)
        self.outcome.summed = decode(mean[start:].numpy(), self.figures)
        return found

    def _screen(self, mean: State, cohort: int, length: int) -> None:
        """Clients screen their own updates; the mean of such updates is no larger than the largest may be, but for
        rounding, which adds less than one unit a value and client."""
        if self.max_update_norm is None:
            return
        norm = math.sqrt(math.fsum(float(value.square().sum()) for value in mean.values()))
        slack = self.settings.step * math.sqrt(length) * cohort
        if norm > self.max_update_norm + slack:
            raise ProtocolError("forged", f"the mean update's norm {norm:.4g} is above {self.max_update_norm:g}")

    def _nothing(self, collector: Collector, why: str) -> None:
        """Nothing was opened: those who did nothing wrong are not in any mean."""
        log(WARNING, "round %d changes nothing: %s", self.outcome.server_round, why)
        for client in self.outcome.weights:
            if client in collector.heard and client not in self.outcome.reports:
                self.outcome.reports[client] = ClientReport(client)
            if client in self.outcome.reports and self.outcome.reports[client].rejected is None:
                self.outcome.unused.setdefault(client, f"nothing was opened: {why}")
