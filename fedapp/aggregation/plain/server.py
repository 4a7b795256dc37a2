"""The server half of the plain protocol: replies are screened one by one as they come, and added up.

Whatever a client sends costs no more than its own update.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from fedapp.aggregation.exact_sum import FRACTION_BITS, as_float, examine
from fedapp.aggregation.plain.client import STAGE
from fedapp.aggregation.plain.packed_levels import LEVEL, levels_in
from fedapp.aggregation.protocol import Aggregate, Ask, Cohort, train_messages
from fedapp.aggregation.reply_log import ReplyLog
from fedapp.aggregation.rules import AggregationRule
from fedapp.common.state_digest import State
from fedapp.updates.steps import UpdateSteps
from fedapp.wire.instruction import Params
from fedapp.wire.model import GlobalModel
from fedapp.wire.records import said_of, text
from fedapp.wire.reply import Reply

__all__ = ["PlainServer"]

ROUNDING = 2.0 ** -(FRACTION_BITS + 1)  # of a value, by each client


class PlainServer:
    """`rule` makes what turns a round's updates into one, anew for each round."""

    def __init__(self, rule: Callable[[State], AggregationRule], steps: UpdateSteps) -> None:
        self._rule, self._steps = rule, steps
        self._each = rule({}).each or not steps.summable
        self._level_bits = steps.level_bits

    def describe(self, cohort_size: int) -> None:
        """There is nothing to say of a sum."""

    def run(self, cohort: Cohort, model: GlobalModel, ask: Ask) -> Aggregate:
        """One question to each SuperNode. Replies are consumed as they arrive, in O(model) memory for the mean."""
        cohort = replace(cohort, instruction=replace(cohort.instruction, each=self._each))
        if self._level_bits is not None:  # what clients multiply their updates by: 1 is the cohort's mean
            cohort = cohort.weighted_by({client: share * len(cohort.hosts) for client, share in cohort.shares.items()})
        replies = ReplyLog(cohort.instruction.server_round, cohort.hosts)
        template = self._steps.template(model.template)
        rule = self._rule(template)
        if cohort.hosts:  # else nobody can have been asked
            for message in ask(train_messages(cohort, model, STAGE, replies), None):
                if reply := replies.unpack(message):
                    self._take(reply, replies, rule, cohort, template)
                if cohort.has_enough(replies):
                    break
        replies.close(enough=cohort.has_enough(replies))
        if len(replies.good) < cohort.minimum:
            replies.leave_out("nothing was aggregated: too few good replies")
            return Aggregate(None, 0.0, (), replies)
        total, weight = rule.result()
        replies.unused.update(rule.unused)
        survivors = tuple(report.client for report in replies.used)
        size = sum(value.numel() for value in template.values())
        # What a robust rule gives is no sum, so no bound on updates holds for it.
        rounding = math.inf if rule.each else ROUNDING * len(survivors) * math.sqrt(size)
        if self._level_bits is not None:
            total = {key: value / LEVEL for key, value in total.items()}
            rounding = len(survivors) * math.sqrt(size)
        return Aggregate(total, weight, survivors, replies, rounding=rounding)

    def _take(self, reply: Reply, replies: ReplyLog, rule: AggregationRule, cohort: Cohort, template: State) -> None:
        """Screen one reply and give what is good in it to `rule`."""
        replies.add(reply.reports)
        good = [report.client for report in reply.reports if report.rejected is None and not report.declined]
        weights, plan = cohort.weights, cohort.instruction.plan
        if reply.total:
            fault = self._sum_fault(reply, good, rule, template, weights, plan)
            for client in good if fault else ():
                replies.reject(client, text(fault))
            return
        if self._level_bits is not None:  # a single update would go past what bounds levels
            for client in good:
                replies.reject(client, "bad reply: no packed levels")
            return
        for client in good:
            try:
                update, largest = self._restored(reply.updates.get(client), template, plan)
            except Exception as error:  # whatever it is, it is the sender's
                replies.reject(client, said_of(error))
            else:
                rule.add(client, update, weights[client], largest)

    def _restored(
        self, sent: State | None, template: State, plan: Mapping[str, Params]
    ) -> tuple[State, Mapping[str, float]]:
        """A single update as it was before its steps, in the model's order, and the largest magnitude of each entry.
        Raises ValueError or UpdateRejected, with the reason."""
        if sent is None:
            raise ValueError("bad reply: no update")
        update = sent if self._steps.summable else self._steps.on_reply(sent, template, 1.0, plan)
        screening = examine(update, template)
        if screening.fault is not None:
            raise ValueError(screening.fault)
        if self._steps.summable:  # they check what is sound, and make nothing larger
            update = self._steps.on_reply(update, template, 1.0, plan)
        # In the model's order: who sends it may not choose how a rule lines it up with the others'.
        return {key: update[key] for key in template}, screening.largest

    def _sum_fault(
        self,
        reply: Reply,
        good: list[int],
        rule: AggregationRule,
        template: State,
        weights: Mapping[int, float],
        plan: Mapping[str, Params],
    ) -> str | None:
        """Why the sum cannot be used, or None. One client's alone would go past what is screened of single updates."""
        if reply.updates or (len(reply.reports) < 2 and self._level_bits is None):
            return f"bad reply: a sum for {len(reply.reports)} clients beside {len(reply.updates)} updates"
        if not good:
            return "bad reply: a sum of nobody's updates"
        if self._each:
            return "a sum over several clients, where single updates were asked for"
        own = [weights[client] for client in good]
        if self._level_bits is not None:
            try:
                rule.add_sum(levels_in(reply.total, len(good), self._level_bits, template), own)
            except ValueError as error:
                return f"bad reply: {error}"
            return None
        fault = rule.screen_sum(reply.total, own)
        if fault is None and self._steps.steps:
            values = as_float({key: reply.total[key] for key in template})
            try:
                self._steps.on_reply(values, values, math.fsum(own), plan)
            except Exception as error:  # whatever it is, it is the sender's
                fault = str(error) or type(error).__name__
        if fault is None:
            rule.add_sum(reply.total, own)
        return fault
