"""Weighted federated averaging (McMahan et al. 2017) with a server optimizer (Reddi et al. 2021).

The strategy chooses a round's cohort and its weights, has an aggregation protocol sum the cohort's updates, divides
the sum, and steps the model by it. Weights come from the preflight's counts, never from a reply. It is a Flower
strategy, too: Flower's own `start` can drive it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from logging import INFO, WARNING

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedapp.aggregation.protocol import Aggregate, Ask, Cohort, ServerHalf, by_supernode
from fedapp.aggregation.reply_log import ReplyLog
from fedapp.common.errors import ConfigError, FederationError
from fedapp.common.logger import log
from fedapp.learning.task import Task
from fedapp.privacy.server_budget import ServerBudget
from fedapp.server.outcome import federated_metrics, mean_train_loss
from fedapp.server.population.cohort import CohortRule, unasked
from fedapp.server.population.roster import Roster
from fedapp.server.repeated import RepeatedRound
from fedapp.server.server_optimizer import ServerOptimizer
from fedapp.updates.step import UpdateRejected
from fedapp.updates.steps import UpdateSteps
from fedapp.wire.instruction import Instruction, pack_instruction
from fedapp.wire.model import GlobalModel

__all__ = ["WeightedFedAvg"]

Schedule = Callable[[int], float]  # the factor on a learning rate, by round
Adopt = Callable[[GlobalModel | None], GlobalModel | None]


class WeightedFedAvg(Strategy):
    """`protocol` is the server half of an aggregation protocol, `steps` what is done to the updates before and to their
    sum after it. `client_lr` and `server_lr` give the learning rates' factor by round. `budget`: what the server itself
    spends of its clients' privacy. Raises ConfigError for secret cohorts without one."""

    def __init__(
        self,
        roster: Roster,
        cohorts: CohortRule,
        protocol: ServerHalf,
        steps: UpdateSteps,
        server_optimizer: ServerOptimizer,
        task: Task,
        *,
        client_lr: Schedule = lambda _: 1.0,
        server_lr: Schedule = lambda _: 1.0,
        message_ttl: float = 3600.0,
        budget: ServerBudget | None = None,
    ) -> None:
        if cohorts.secret and budget is None:
            raise ConfigError("privacy: rounds with secret cohorts are paid for by the server, and there is no budget")
        self.roster, self.cohorts, self.protocol, self.steps = roster, cohorts, protocol, steps
        self.server_optimizer = server_optimizer
        self.client_lr, self.server_lr = client_lr, server_lr
        self.message_ttl, self.task = message_ttl, task
        self.repeated = RepeatedRound()
        self.candidates: ReplyLog | None = None  # what became of those whom the last round asked for their losses
        self.budget = budget

    @property
    def min_clients(self) -> int:
        """With fewer updates a round changes nothing."""
        return self.cohorts.minimum

    def summary(self) -> None:
        """Log what this strategy will do."""
        reachable = self.roster.reachable()
        there = self.cohorts.whole(reachable)
        size = self.cohorts.needed(len(there))
        if len(there) < len(reachable):
            log(WARNING, "clients %s are in no complete group: not asked", sorted({*reachable} - {*there})[:20])
        log(INFO, "WeightedFedAvg: %s", self.cohorts.said(size, len(self.roster.nodes)))
        self.say_bounded()
        self.protocol.describe(size)

    def say_bounded(self) -> None:
        """Log whose reports count only within bounds."""
        for name, why in self.roster.bounded.items():
            log(WARNING, "%s is bounded: %s", name, why)

    def choose(self, server_round: int, run: str, model: GlobalModel | None = None, ask: Ask | None = None) -> Cohort:
        """This round's cohort, of the clients that are there, and what it is asked to do. `run`: the run's name. For an
        option of `cohort` that asks candidates first, `model` is what they judge."""
        self.candidates = None
        if (again := self.repeated.ask(server_round, self.roster.reachable())) is not None:
            hosts = self.roster.hosts(again.clients)
            return Cohort(again, hosts, len(hosts), self.min_clients, self.message_ttl, self.roster.helpers)
        if self.budget is not None:
            self.budget.pay(run, server_round)

        def losses(candidates: Sequence[int]) -> Mapping[int, float]:
            if model is None or ask is None:
                return unasked(candidates)
            instruction = Instruction(server_round, (), run=run, candidate=True)
            self.candidates = found = self._judged(instruction, candidates, model, ask)
            return {report.client: report.train_loss for report in found.good if report.train_loss is not None}

        clients, needed = self.cohorts.draw(self.roster, server_round, losses)
        weights = self._weights(clients)
        instruction = Instruction(
            server_round,
            tuple(sorted(weights)),
            tuple(weights[client] for client in sorted(weights)),
            lr_factor=self.client_lr(server_round),
            run=run,
            plan=self.steps.plan(server_round, weights.values()),
        )
        hosts = self.roster.hosts(weights)
        return Cohort(instruction, hosts, needed, self.min_clients, self.message_ttl, self.roster.helpers)

    def train(
        self, cohort: Cohort, model: GlobalModel, ask: Ask, adopt: Adopt = lambda changed: changed
    ) -> tuple[GlobalModel | None, Aggregate]:
        """The next global model, or None where too few updates were good; and what came of the cohort. `adopt`: what
        the run goes on with in the place of that model."""
        changed, aggregate = self._train(cohort, model, ask)
        changed = adopt(changed)
        self.repeated.note(cohort, model, changed, aggregate)
        return changed, aggregate

    def _train(self, cohort: Cohort, model: GlobalModel, ask: Ask) -> tuple[GlobalModel | None, Aggregate]:
        aggregate, instruction = self.protocol.run(cohort, model, ask), cohort.instruction
        if aggregate.next_model is not None:
            return GlobalModel(aggregate.next_model), aggregate
        survivors, weight, plan = aggregate.survivors, aggregate.weight, aggregate.plan or instruction.plan
        divisor = self.cohorts.divisor(weight)
        if aggregate.total is None or not divisor > 0:
            return None, replace(aggregate, total=None, survivors=(), scalars=None)
        try:
            total = self.steps.on_total(aggregate.total, weight, survivors, plan, aggregate.rounding)
        except UpdateRejected as error:
            log(WARNING, "round %d changes nothing: %s", instruction.server_round, error)
            aggregate.replies.leave_out(f"nothing was aggregated: {error}")
            return None, replace(aggregate, total=None, survivors=(), scalars=None)
        mean = {key: value.div_(divisor) for key, value in total.items()}
        state = self.server_optimizer.step(model.state, mean, self.server_lr(instruction.server_round))
        return GlobalModel(state), aggregate

    def evaluate(self, server_round: int, run: str, model: GlobalModel, ask: Ask, *, deliver: bool = False) -> ReplyLog:
        """Every client that is there, sampled or not, judges the model on its validation split. With `deliver` devices
        store it as the run's result."""
        instruction = Instruction(server_round, (), run=run, deliver=deliver)
        return self._judged(instruction, self.roster.reachable(), model, ask)

    def _judged(self, instruction: Instruction, clients: Iterable[int], model: GlobalModel, ask: Ask) -> ReplyLog:
        """Ask these clients to judge the model, as the instruction says."""
        weights, group = self._weights(clients), str(instruction.server_round)
        hosts = self.roster.hosts(weights)
        replies, messages = ReplyLog(instruction.server_round, hosts), []
        for node, hosted in by_supernode(weights, hosts).items():
            own = replace(instruction, clients=tuple(hosted), weights=tuple(weights[client] for client in hosted))
            content = pack_instruction(own, model)
            replies.sent(content)
            messages.append(Message(content, node, MessageType.EVALUATE, ttl=self.message_ttl, group_id=group))
        for message in ask(messages, None):
            if reply := replies.unpack(message):
                replies.add(reply.reports)
        return replies

    def _weights(self, clients: Iterable[int]) -> dict[int, float]:
        counts = {client: self.roster.num_examples[client] for client in clients}
        return self.cohorts.weights(counts, self.roster.bound) if counts else {}

    # --- Flower's own loop: a round may take several messages, so all of it happens where Flower asks for them -----

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The whole round; nothing is left for Flower to send."""
        if self.cohorts.secret:
            raise FederationError("privacy=client_dp: Flower's own loop tells who was in a round; use run_federation")
        model, ask = GlobalModel.from_arrays(arrays), self._asking(grid)
        self._cohort = self.choose(server_round, str(config.get("run", "")), model, ask)
        self._trained = self.train(self._cohort, model, ask)
        self.roster.note(server_round, self._trained[1].replies.reports)
        return []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The round's model, or None for it where fewer than `min_clients` updates were good."""
        model, aggregate = self._trained
        if model is None:
            return None, None
        loss = mean_train_loss(aggregate.replies, self._cohort.weights, aggregate.scalars)
        found = {"clients": float(len(aggregate.survivors)), "train-loss": loss}
        return model.arrays, MetricRecord({name: value for name, value in found.items() if value is not None})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The whole evaluation; nothing is left for Flower to send."""
        run = str(config.get("run", ""))
        self._evaluated = self.evaluate(server_round, run, GlobalModel.from_arrays(arrays), self._asking(grid))
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Metrics over all clients that replied; None if nobody has a validation split."""
        found = federated_metrics(self._evaluated.good, self.task, self.roster.counted, self.roster.bound)
        return MetricRecord({name: value for name, value in found.items() if value is not None}) or None

    def _asking(self, grid: Grid) -> Ask:
        """A silent SuperNode is waited for as long as a message lives, which Flower's `start` does not say."""
        return lambda messages, timeout: grid.send_and_receive(messages, timeout=timeout or self.message_ttl)
