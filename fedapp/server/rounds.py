"""Synchronous rounds: this is where a round happens, from top to bottom."""

from collections.abc import Iterable, Iterator, Mapping
from logging import WARNING
from typing import Any

from flwr.app import Message

from fedapp.aggregation.exact_sum import normalised
from fedapp.aggregation.protocol import Ask
from fedapp.aggregation.reply_log import ReplyLog
from fedapp.common.logger import log
from fedapp.learning.task import Task
from fedapp.models.shared_state import shared_state
from fedapp.server.central_evaluation import CentralEvaluation
from fedapp.server.clock import Clock
from fedapp.server.exchange import Exchange, Late
from fedapp.server.outcome import Metrics, RoundOutcome, own_metrics, validation_metrics
from fedapp.server.population.attendance import Attendance
from fedapp.server.run_directory.checkpoint import Checkpoint
from fedapp.server.strategy import WeightedFedAvg
from fedapp.server.threads import one_thread
from fedapp.updates.server_side import figures_of, load_steps, state_of
from fedapp.wire.model import GlobalModel
from fedapp.wire.records import text

__all__ = ["SynchronousRounds"]


class SynchronousRounds:
    """Rounds that wait for their cohort (the Procedure of a horizontal run).

    `central` evaluates on the server's data; its network holds the initial model.
    """

    def __init__(
        self,
        exchange: Exchange,
        attendance: Attendance,
        strategy: WeightedFedAvg,
        task: Task,
        central: CentralEvaluation,
        *,
        round_timeout: float,
    ) -> None:
        self.exchange, self.attendance, self.strategy = exchange, attendance, strategy
        self.task, self.central, self.round_timeout = task, central, round_timeout
        # A copy: evaluation loads whatever is judged into the network's own tensors.
        self.model = GlobalModel({name: value.clone() for name, value in shared_state(central.network).items()})

    def round(self, server_round: int, run: str, clock: Clock) -> RoundOutcome:
        """Who is there, whom to ask, messages out and replies in, the next model, its evaluation."""
        strategy, roster = self.strategy, self.strategy.roster

        late = self.attendance.update()
        left_out = len(roster.left_out(server_round))
        cohort = strategy.choose(server_round, run, self.model, self._asking(clock))
        changed, aggregate = strategy.train(cohort, self.model, self._asking(clock))
        replies = aggregate.replies
        _add_late(replies, late)
        _add_candidates(replies, strategy.candidates)
        excluded = roster.note(server_round, replies.reports)
        _log_faults(replies, excluded)
        clock.lap("aggregate")

        self.model = changed or self.model
        test = self.central.metrics(self.model.state)
        clock.lap("evaluate")
        validation = validation_metrics(replies, aggregate.scalars, self.task, roster.counted, roster.bound)
        return RoundOutcome(
            server_round,
            cohort.weights if roster.bound is None else normalised(cohort.weights),
            replies,
            changed=changed is not None,
            test=test,
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
                yield from clock.waiting("clients", self.exchange(messages, timeout or self.round_timeout))

        return ask

    @property
    def exhausted(self) -> str | None:
        strategy, roster = self.strategy, self.strategy.roster
        left = strategy.cohorts.whole(roster.nodes.keys() - roster.declined)
        if not roster.declined or len(left) >= strategy.min_clients:
            return None
        return f"privacy budget: fewer than the {strategy.min_clients} clients that a round needs have budget left"

    def begin(self) -> Metrics:
        return self.central.metrics(self.model.state)

    def final(self, server_round: int, run: str, *, deliver: bool) -> RoundOutcome:
        """Federated evaluation of the final model, on every client that is there."""
        strategy, late = self.strategy, self.attendance.update()

        def ask(messages: Iterable[Message], timeout: float | None) -> Iterable[Message]:
            return self.exchange(messages, timeout or self.round_timeout)

        replies = strategy.evaluate(server_round, run, self.model, ask, deliver=deliver)
        _add_late(replies, late)
        delivered = sum(report.delivered for report in replies.good)
        if deliver and delivered < len(replies.good):
            log(WARNING, "%d of %d clients store the result: others have no keep-path", delivered, len(replies.good))
        validation = validation_metrics(replies, None, self.task, strategy.roster.counted, strategy.roster.bound)
        validation |= own_metrics(replies.good, self.task, strategy.roster.counted, strategy.roster.bound)
        return RoundOutcome(server_round, {}, replies, validation=validation)

    # --- going on from a checkpoint ----------------------------------------------------------------------------

    def optimizer_state(self) -> dict[str, Any]:
        return self.strategy.server_optimizer.state_dict()

    def state_dict(self) -> dict[str, Any]:
        roster, repeated = self.strategy.roster.state_dict(), self.strategy.repeated.state_dict()
        return {"steps": state_of(self.strategy.steps), "roster": roster, "repeated": repeated}

    def load(self, saved: Checkpoint) -> None:
        own = [name for name in shared_state(self.central.network) if name in saved.model]  # in the order of a new run
        model = {name: saved.model[name] for name in own or saved.model}  # a sealed model has other names
        load_steps(self.strategy.steps, saved.values.get("steps", {}))
        self.strategy.roster.load_state_dict(saved.values["roster"])
        self.strategy.repeated.load_state_dict(saved.values.get("repeated"))
        self.strategy.server_optimizer.load_state_dict(dict(saved.optimizer), model)
        self.model = GlobalModel(model)


def _add_late(replies: ReplyLog, late: Iterable[Late]) -> None:
    """Book replies to earlier rounds: an overdue one is rejected, one that was not waited for is not."""
    for reply in late:
        replies.bytes_up += reply.tensor_bytes
        if reply.overdue:
            replies.strays.append(f"SuperNode {reply.node} replied too late: to round {text(reply.group)}")


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


def _log_faults(replies: ReplyLog, excluded: Mapping[int, int]) -> None:
    for client, report in sorted(replies.reports.items()):
        if report.rejected:
            log(WARNING, "round %d: client %d rejected: %s", replies.server_round, client, report.rejected)
    for client, last in sorted(excluded.items()):
        log(WARNING, "client %d failed too often in a row: left out until round %d", client, last)
    for stray in replies.strays:
        log(WARNING, "round %d: reply dropped: %s", replies.server_round, stray)
