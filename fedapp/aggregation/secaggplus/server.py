"""The server half of SecAgg+: it unmasks the sum of a cohort's updates, and sees no individual update.

Stages, each a message to every SuperNode with clients that are still in it: keys, shares, masked vectors, among devices
consistency, unmasking. Clients that drop out at a stage are rejected. The sum over those who remain is unmasked where
enough of them are left; otherwise the round changes nothing and says why.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from logging import INFO, WARNING

from fedapp.aggregation.protocol import Aggregate, Ask, Cohort
from fedapp.aggregation.reply_log import ReplyLog
from fedapp.aggregation.secaggplus.asking import Asking
from fedapp.aggregation.secaggplus.collector import Collector, Unmasked
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.secaggplus.stages import Stages, Timeouts
from fedapp.aggregation.whole_numbers.noised_sum import noised_aggregate
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.aggregation.whole_numbers.sum_reading import SumReading
from fedapp.aggregation.whole_numbers.work_digest import work_digest
from fedapp.common.logger import log
from fedapp.privacy.noised_integers import NoisedIntegers
from fedapp.updates.steps import UpdateSteps
from fedapp.wire.model import GlobalModel
from fedapp.wire.reply import ClientReport

__all__ = ["SecAggServer"]

NO_STEPS = UpdateSteps()


class SecAggServer:
    """`metrics`: by name, the largest value of each metric that is aggregated along with the updates. `config_sha256`:
    of the resolved config. `lowest`: by name, the lowest value, where that is not the largest one's negative. `noised`:
    as of the client half. `steps`: of the run."""

    def __init__(
        self,
        settings: Settings,
        timeouts: Timeouts,
        metrics: Mapping[str, float],
        config_sha256: str = "",
        *,
        lowest: Mapping[str, float] | None = None,
        noised: NoisedIntegers | None = None,
        steps: UpdateSteps = NO_STEPS,
    ) -> None:
        self._noised, self._steps = noised, steps
        self._settings, self._timeouts, self._metrics = settings, timeouts, dict(metrics)
        self._config_sha256 = config_sha256
        self._reading = SumReading(settings, self._metrics, dict(lowest or {}))

    def describe(self, cohort_size: int) -> None:
        """The neighbour graph, and a threshold that trusts the server with more than it must."""
        degree, needed = self._settings.degree(cohort_size), self._settings.needed(cohort_size)
        log(INFO, "Secure aggregation: each with %d neighbours, %d of %d unmask its part", degree, needed, degree + 1)
        if (size := self._settings.batches) is not None and degree == cohort_size - 1:
            spare = (cohort_size - needed) // size
            log(
                WARNING if not spare else INFO,
                "secure_aggregation.batches=%d: a dropout takes its batch along; of %d a round bears the loss of %d",
                *(size, cohort_size // size, spare),
            )
        if 2 * needed <= degree + 1:
            log(
                WARNING,
                "secure_aggregation.threshold=%d: at most half of the %d who hold a client's shares: a server that"
                " tells them different things could collect both of its secrets",
                *(needed, degree + 1),
            )

    def run(self, cohort: Cohort, model: GlobalModel, ask: Ask) -> Aggregate:
        """One round. Its total is the weighted mean over the survivors, of weight 1."""
        instruction = cohort.instruction
        replies = ReplyLog(instruction.server_round, cohort.hosts)
        noised, template = self._noised, self._steps.template(model.template)
        length = sum(value.numel() for value in template.values())
        collector = Collector(
            self._settings,
            run=instruction.run,
            server_round=instruction.server_round,
            model=model.sha256,
            weights=cohort.weights,
            length=noised.length if noised is not None else length + self._reading.entries,
            minimum=max(cohort.minimum, noised.least) if noised is not None else cohort.minimum,
            work=work_digest(instruction, self._config_sha256),
        )
        try:
            unmasked = Stages(collector, model, Asking(instruction.run, cohort, ask, replies), self._timeouts)()
            found = self._aggregate(unmasked, collector, model, replies)
        except ProtocolError as error:
            for client in error.accused:
                replies.reject(client, str(error))
            _nothing(collector, replies, str(error))
            found = Aggregate(None, 0.0, (), replies)
        replies.close(enough=cohort.has_enough(replies))
        return replace(found, revealed=collector.revealing)

    def _aggregate(self, unmasked: Unmasked, collector: Collector, model: GlobalModel, replies: ReplyLog) -> Aggregate:
        for share in unmasked.shares_refused:
            log(WARNING, "round %d: %s", replies.server_round, share)
        if self._noised is not None:
            total, bits = unmasked.total, self._settings.modulus_bits
            return noised_aggregate(self._noised, total, unmasked.survivors, model.template, replies, bits)
        members = [collector.view.by_client[client] for client in unmasked.survivors]
        weight = math.fsum(member.weight * len(collector.view.members) for member in members)
        template = self._steps.template(model.template)
        return self._reading.aggregate(unmasked.total, weight, unmasked.survivors, template, replies)


def _nothing(collector: Collector, replies: ReplyLog, why: str) -> None:
    """Nothing was unmasked: those who did nothing wrong are not in any sum."""
    log(WARNING, "round %d changes nothing: %s", replies.server_round, why)
    for client in replies.hosts:
        if client in collector.heard and client not in replies.reports:
            replies.reports[client] = ClientReport(client)
    replies.leave_out(f"nothing was unmasked: {why}")
