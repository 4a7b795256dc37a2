"""What all procedures over clients with different examples share: the model, its judges, and going on."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from logging import WARNING
from typing import Any

from flwr.app import Message
from torch import Tensor

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
from fedapp.server.sent_models import SentModels
from fedapp.server.strategy import WeightedFedAvg
from fedapp.updates.server_side import load_steps, state_of
from fedapp.wire.model import GlobalModel
from fedapp.wire.records import text

__all__ = ["HorizontalRounds", "add_late"]


class HorizontalRounds(ABC):
    """`central` evaluates on the server's data; its network holds the initial model."""

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
        self.delivered = SentModels()
        # A copy: evaluation loads whatever is judged into the network's own tensors.
        self.model = GlobalModel({name: value.clone() for name, value in shared_state(central.network).items()})

    @abstractmethod
    def round(self, server_round: int, run: str, clock: Clock) -> RoundOutcome: ...

    def summary(self) -> None:
        """Log what these rounds will do."""
        self.strategy.summary()

    def deliver_by(self, delivered: SentModels) -> None:
        """How models go out; whole ones without it."""
        self.delivered = delivered

    def attach(self, record: Callable[[Sequence[Mapping[str, Any]]], None], save: Callable[[], None]) -> None:  # noqa: B027
        """For rounds that have something to record while they go on, or to save: see AsynchronousRounds."""

    def facts(self) -> dict[str, Any]:
        """What summary.json says of them besides what is common to all."""
        return {}

    @property
    def exhausted(self) -> str | None:
        strategy, roster = self.strategy, self.strategy.roster
        left = strategy.cohorts.whole(roster.nodes.keys() - roster.declined)
        if not roster.declined or len(left) >= strategy.min_clients:
            return None
        return f"privacy budget: fewer than the {strategy.min_clients} clients that a round needs have budget left"

    def _noted(self, server_round: int, replies: ReplyLog) -> Mapping[int, int]:
        """Clients that have now failed once too often, with the last round for which they are left out."""
        excluded = self.strategy.roster.note(server_round, replies.reports)
        log_faults(replies, excluded)
        return excluded

    def _exchanged(self, messages: Iterable[Message], timeout: float | None) -> Iterator[Message]:
        """Replies to messages that bring the model as it is now."""
        return self.delivered.exchanged(self.exchange, messages, timeout or self.round_timeout, self.model)

    def _adopted(self, changed: GlobalModel | None, server_round: int) -> GlobalModel | None:
        """The next model, if there is one, as its difference from this one decodes to it."""
        return changed if changed is None else self.delivered.adopted(self.model, changed, server_round)

    def _judged(self, server_round: int, changed: GlobalModel | None, clock: Clock) -> Metrics:
        """Go on with the next model, if there is one; metrics of it on the server's data, where this round is one after
        which it is judged."""
        clock.lap("aggregate")
        self.model = changed or self.model
        test = self.central.metrics(self.model.state) if self.central.due(server_round) else self.central.unknown()
        clock.lap("evaluate")
        return test

    def begin(self) -> Metrics:
        return self.central.metrics(self.model.state)

    def final(self, server_round: int, run: str, *, deliver: bool) -> RoundOutcome:
        """Federated evaluation of the final model, on every client that is there."""
        strategy, late = self.strategy, self.attendance.update()
        replies = strategy.evaluate(server_round, run, self.model, self._exchanged, deliver=deliver)
        replies.bytes_down += self.delivered.unbooked()
        add_late(replies, late)
        delivered = sum(report.delivered for report in replies.good)
        if deliver and delivered < len(replies.good):
            log(WARNING, "%d of %d clients store the result: others have no keep-path", delivered, len(replies.good))
        validation = validation_metrics(replies, None, self.task, strategy.roster.counted, strategy.roster.bound)
        validation |= own_metrics(replies.good, self.task, strategy.roster.counted, strategy.roster.bound)
        return RoundOutcome(server_round, {}, replies, validation=validation)

    # --- going on from a checkpoint ----------------------------------------------------------------------------

    def optimizer_state(self) -> dict[str, Any]:
        return self.strategy.server_optimizer.state_dict()

    def tensors(self) -> Mapping[str, Tensor]:
        """What of a checkpoint is tensors besides model and optimizer, by name."""
        return self.delivered.tensors()

    def state_dict(self) -> dict[str, Any]:
        roster, repeated = self.strategy.roster.state_dict(), self.strategy.repeated.state_dict()
        found = {"steps": state_of(self.strategy.steps), "roster": roster, "repeated": repeated}
        return {**found, "downlink": self.delivered.state_dict(self.strategy.roster.nodes)}

    def load(self, saved: Checkpoint) -> None:
        model = self._in_order(saved.model)
        load_steps(self.strategy.steps, saved.values.get("steps", {}))
        self.strategy.roster.load_state_dict(saved.values["roster"])
        self.strategy.repeated.load_state_dict(saved.values.get("repeated"))
        self.strategy.server_optimizer.load_state_dict(dict(saved.optimizer), model)
        self.model = GlobalModel(model)
        self.delivered.load(saved.values.get("downlink", {}), saved.tensors, self.strategy.roster.nodes)

    def _in_order(self, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of a checkpoint, which are sorted by name, in the order of a new run: update steps line up values by
        it. A sealed model has other names."""
        own = [name for name in shared_state(self.central.network) if name in saved]
        return {name: saved[name] for name in own} or dict(saved)


def add_late(replies: ReplyLog, late: Iterable[Late]) -> None:
    """Book replies to earlier rounds: an overdue one is rejected, one that was not waited for is not."""
    for reply in late:
        replies.bytes_up += reply.tensor_bytes
        if reply.overdue:
            replies.strays.append(f"SuperNode {reply.node} replied too late: to round {text(reply.group)}")


def log_faults(replies: ReplyLog, excluded: Mapping[int, int]) -> None:
    for client, report in sorted(replies.reports.items()):
        if report.rejected:
            log(WARNING, "round %d: client %d rejected: %s", replies.server_round, client, report.rejected)
    for client, last in sorted(excluded.items()):
        log(WARNING, "client %d failed too often in a row: left out until round %d", client, last)
    for stray in replies.strays:
        log(WARNING, "round %d: reply dropped: %s", replies.server_round, stray)
