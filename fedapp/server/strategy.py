"""Weighted federated averaging (McMahan et al. 2017) with a server optimizer (Reddi et al. 2021).

A Flower strategy: `configure_train` says who gets which message, `aggregate_train` turns replies into the next
global model. Replies are consumed one by one as they arrive and summed exactly, so memory stays O(model) and the
result does not depend on their order. Weights come from the preflight's counts, never from a reply.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from logging import INFO, WARNING

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from fedapp.aggregation.exact_sum import normalised
from fedapp.aggregation.rules import AggregationRule, WeightedMean
from fedapp.aggregation.screening import open_reply, take_reply
from fedapp.server.exchange import Late
from fedapp.server.outcome import RoundOutcome, federated_metrics
from fedapp.server.population.cohort import cohort_size, cohort_weights, sample_cohort
from fedapp.server.population.roster import Roster
from fedapp.server.server_optimizer import ServerOptimizer
from fedapp.wire.instruction import Instruction, pack_instruction
from fedapp.wire.records import arrays_to_state, state_to_arrays, tensor_bytes

__all__ = ["Ask", "State", "WeightedFedAvg"]

State = dict[str, Tensor]
Ask = Callable[[Iterable[Message], float | None], Iterable[Message]]  # replies, within so many seconds


def constant(_: int) -> float:
    """The learning rate factor of every round where there is no schedule."""
    return 1.0


class WeightedFedAvg(Strategy):
    """`aggregation` makes the rule that turns a round's updates into one, `server_optimizer` steps the model by it.

    `over_selection` is the share of clients asked beyond those needed; the round goes on once enough are in.
    `client_lr` and `server_lr` give the learning rates' factor by round.
    """

    def __init__(
        self,
        roster: Roster,
        *,
        server_optimizer: ServerOptimizer,
        seed: int,
        aggregation: Callable[[State], AggregationRule] = WeightedMean,
        fraction_train: float = 1.0,
        over_selection: float = 0.0,
        min_clients: int = 1,
        weighting: str = "num_examples",
        weight_cap: float | None = None,
        max_update_norm: float | None = None,
        client_lr: Callable[[int], float] = constant,
        server_lr: Callable[[int], float] = constant,
        message_ttl: float = 3600.0,
        main_metric: str = "accuracy",
    ) -> None:
        self.roster, self.server_optimizer, self.aggregation = roster, server_optimizer, aggregation
        self.seed, self.fraction_train, self.over_selection = seed, fraction_train, over_selection
        self.weighting, self.weight_cap, self.max_update_norm = weighting, weight_cap, max_update_norm
        self.client_lr, self.server_lr = client_lr, server_lr
        self.message_ttl, self.main_metric = message_ttl, main_metric
        probe = aggregation({})
        self._each = probe.each
        self.min_clients = max(min_clients, probe.fewest)
        self._state: State = {}
        self._hosts: Mapping[int, int] = {}  # of this round: the SuperNode that is asked, by client
        self._needed = 0  # updates of this round
        self.outcome = RoundOutcome(0, {})

    @property
    def cohort_size(self) -> int:
        """How many updates a round is to have, of the clients whose SuperNodes are there."""
        return cohort_size(len(self.roster.reachable()), self.fraction_train, self.min_clients)

    def summary(self) -> None:
        """Log what this strategy will do."""
        log(
            INFO,
            "WeightedFedAvg: %d of %d clients a round, weighted by %s",
            *(self.cohort_size, len(self.roster.nodes), self.weighting),
        )

    # --- a round of training ------------------------------------------------------------------------------------

    def train(
        self,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        ask: Ask,
        grid: Grid,
        late: Iterable[Late] = (),
    ) -> ArrayRecord | None:
        """A whole round: the next global model, or None where too few replies were good. `late`: replies to earlier
        rounds."""
        messages = self.configure_train(server_round, arrays, config, grid)
        self.outcome.add_late(late)
        return self.aggregate_train(server_round, ask(messages, None))[0]

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message for each SuperNode that hosts clients of this round's cohort."""
        self._begin(server_round, arrays)
        return self._messages(MessageType.TRAIN, arrays, config)

    def _begin(self, server_round: int, arrays: ArrayRecord) -> None:
        """Choose a round's cohort, and open its ledger."""
        self._needed = self.cohort_size
        wanted = math.ceil(round(self._needed * (1 + self.over_selection), 9))
        free = self.roster.available(server_round, self.min_clients)
        cohort = sample_cohort(free, min(wanted, len(free)), seed=self.seed, server_round=server_round)
        self._state = arrays_to_state(arrays)
        self.outcome = RoundOutcome(server_round, self._weights(cohort))
        self.outcome.left_out = len(self.roster.left_out(server_round))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The next global model, or None for it where fewer than `min_clients` replies were good."""
        outcome = self.outcome
        template = {key: value for key, value in self._state.items() if value.is_floating_point()}
        rule = self.aggregation(template)
        if outcome.weights:  # else nobody can have been asked
            for message in replies:
                if reply := open_reply(message, outcome, self._hosts):
                    take_reply(reply, outcome, rule, template, max_norm=self.max_update_norm)
                if self._has_enough(outcome):
                    break
        self._close(outcome)
        if len(outcome.good) < self.min_clients:
            return None, None
        mean = rule.mean()
        outcome.unused.update(rule.unused)
        self._state = self.server_optimizer.step(self._state, mean, self.server_lr(server_round))
        outcome.changed = True
        metrics = {"train-loss": outcome.train_loss, "clients": float(len(outcome.used))}
        return state_to_arrays(self._state), MetricRecord({k: v for k, v in metrics.items() if v is not None})

    def _has_enough(self, outcome: RoundOutcome) -> bool:
        """Whether a round that asked more clients than it needs can do without the rest."""
        return len(outcome.weights) > self._needed <= len(outcome.good)

    def _close(self, outcome: RoundOutcome) -> None:
        """No more replies: say what became of every client asked."""
        for client in outcome.weights:
            if client not in outcome.reports and client not in outcome.unused:
                if self._has_enough(outcome):
                    outcome.unused[client] = "surplus: the round had its replies"
                else:
                    outcome.reject(client, "no reply in time")
        self.roster.note(outcome)
        for client, report in sorted(outcome.reports.items()):
            if report.rejected:
                log(WARNING, "round %d: client %d rejected: %s", outcome.server_round, client, report.rejected)
        for client, last in sorted(outcome.excluded.items()):
            log(WARNING, "client %d failed too often in a row: left out until round %d", client, last)
        for stray in outcome.strays:
            log(WARNING, "round %d: reply dropped: %s", outcome.server_round, stray)

    def _weights(self, clients: Iterable[int]) -> dict[int, float]:
        counts = {client: self.roster.num_examples[client] for client in clients}
        return normalised(cohort_weights(counts, self.weighting, self.weight_cap)) if counts else {}

    def _messages(self, kind: str, arrays: ArrayRecord, config: ConfigRecord) -> list[Message]:
        outcome = self.outcome
        self._hosts = self.roster.hosts(outcome.weights)
        by_node: dict[int, list[int]] = defaultdict(list)
        for client in sorted(outcome.weights):
            by_node[self._hosts[client]].append(client)
        messages = []
        for node, clients in by_node.items():
            instruction = Instruction(
                outcome.server_round,
                tuple(clients),
                tuple(outcome.weights[client] for client in clients),
                lr_factor=self.client_lr(outcome.server_round) if kind == MessageType.TRAIN else 1.0,
                each=self._each,
            )
            content = pack_instruction(instruction, arrays, config)
            outcome.bytes_down += tensor_bytes(content)
            group = str(outcome.server_round)
            messages.append(Message(content, node, kind, ttl=self.message_ttl, group_id=group))
        return messages

    # --- evaluation on the clients ------------------------------------------------------------------------------

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask every client that is there, sampled or not, to judge the global model on its validation split."""
        self.outcome = RoundOutcome(server_round, self._weights(self.roster.reachable()))
        return self._messages(MessageType.EVALUATE, arrays, config)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Metrics over all clients that replied; None if nobody has a validation split."""
        for message in replies:
            if reply := open_reply(message, self.outcome, self._hosts):
                self.outcome.reports.update({report.client: report for report in reply.reports})
        figures = federated_metrics(self.outcome.good, self.main_metric, self.roster.num_examples)
        return MetricRecord({k: v for k, v in figures.items() if v is not None}) or None
