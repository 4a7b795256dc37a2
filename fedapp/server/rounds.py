"""Synchronous rounds: this is where a round happens, from top to bottom."""

from collections.abc import Iterable, Iterator
from functools import partial
from logging import WARNING

from flwr.app import Message

from fedapp.aggregation.exact_sum import normalised
from fedapp.aggregation.protocol import Ask
from fedapp.aggregation.reply_log import ReplyLog
from fedapp.common.logger import log
from fedapp.server.clock import Clock
from fedapp.server.horizontal_rounds import HorizontalRounds, add_late
from fedapp.server.outcome import RoundOutcome, validation_metrics
from fedapp.server.threads import one_thread
from fedapp.updates.server_side import figures_of

__all__ = ["SynchronousRounds"]


class SynchronousRounds(HorizontalRounds):
    """Rounds that wait for their cohort (the Procedure of most horizontal runs)."""

    def round(self, server_round: int, run: str, clock: Clock) -> RoundOutcome:
        """Who is there, whom to ask, messages out and replies in, the next model, its evaluation."""
        strategy, roster = self.strategy, self.strategy.roster

        late = self.attendance.update()
        left_out = len(roster.left_out(server_round))
        cohort = strategy.choose(server_round, run, self.model, self._asking(clock))
        changed, aggregate = strategy.train(
            cohort, self.model, self._asking(clock), partial(self._adopted, server_round=server_round)
        )
        replies = aggregate.replies
        add_late(replies, late)
        _add_candidates(replies, strategy.candidates)
        excluded = self._noted(server_round, replies)

        replies.bytes_down += self.delivered.unbooked()
        test = self._judged(server_round, changed, clock)
        validation = validation_metrics(replies, aggregate.scalars, self.task, roster.counted, roster.bound)
        return RoundOutcome(
            server_round,
            cohort.weights if roster.bound is None else normalised(cohort.weights),
            replies,
            changed=changed is not None,
            test=test,
            skipped_test=not self.central.due(server_round),
            validation=validation,
            excluded=excluded,
            left_out=left_out,
            scalars=aggregate.scalars,
            warnings={**aggregate.warnings, **self.central.warnings(validation)},
            figures=figures_of(strategy.steps),
        )

    def _asking(self, clock: Clock) -> Ask:
        def ask(messages: Iterable[Message], timeout: float | None) -> Iterator[Message]:
            clock.lap("other")
            with one_thread(self.attendance.is_simulation):
                yield from clock.waiting("clients", self._exchanged(messages, timeout))

        return ask


def _add_candidates(replies: ReplyLog, candidates: ReplyLog | None) -> None:
    """Book what it took to choose the cohort; whoever failed then was chosen last, and that is all."""
    if candidates is None:
        return
    replies.bytes_up += candidates.bytes_up
    replies.bytes_down += candidates.bytes_down
    replies.strays += candidates.strays
    for client, report in sorted(candidates.reports.items()):
        if report.rejected:
            log(WARNING, "round %d: candidate %d told no loss: %s", replies.server_round, client, report.rejected)
