"""Weighted federated averaging (McMahan et al. 2017) with a server optimizer (Reddi et al. 2021).

A Flower strategy: `configure_train` says who gets which message, `aggregate_train` turns replies into the next
global model. Replies are consumed one by one as they arrive and summed exactly, so memory stays O(model) and the
result does not depend on their order. Weights come from the preflight's counts, never from a reply.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from logging import INFO, WARNING

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor, nn

from fedapp.aggregation import WeightedSum, normalised, screen
from fedapp.federation.cohort import cohort_size, cohort_weights, sample_cohort
from fedapp.federation.outcome import RoundOutcome, federated_metrics
from fedapp.federation.preflight import Population
from fedapp.wire.records import arrays_to_state, state_to_arrays, tensor_bytes, text
from fedapp.wire.rounds import Instruction, Reply, pack_instruction, unpack_reply

__all__ = ["WeightedFedAvg"]

State = dict[str, Tensor]


class WeightedFedAvg(Strategy):
    """`parameters` names the entries of the state dict that the server optimizer steps; other floating-point entries
    (BatchNorm statistics) take the plain average, and integer entries stay as they are."""

    def __init__(
        self,
        population: Population,
        *,
        parameters: Iterable[str],
        server_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
        seed: int,
        fraction_train: float = 1.0,
        min_clients: int = 1,
        weighting: str = "num_examples",
        weight_cap: float | None = None,
        max_update_norm: float | None = None,
        message_ttl: float = 3600.0,
        main_metric: str = "accuracy",
    ) -> None:
        self.population = population
        self.seed, self.fraction_train, self.min_clients = seed, fraction_train, min_clients
        self.weights = cohort_weights(population.num_examples, weighting, weight_cap)
        self.weighting, self.max_update_norm = weighting, max_update_norm
        self.message_ttl, self.main_metric = message_ttl, main_metric
        self._names = list(parameters)
        self._make_optimizer = server_optimizer
        self._parameters: dict[str, nn.Parameter] = {}
        self._optimizer: torch.optim.Optimizer | None = None
        self._state: State = {}
        self.outcome = RoundOutcome(0, {})

    def summary(self) -> None:
        """Log what this strategy will do."""
        total = len(self.weights)
        size = cohort_size(total, self.fraction_train, self.min_clients)
        log(INFO, "WeightedFedAvg: %d of %d clients a round, weighted by %s", size, total, self.weighting)

    # --- a round of training ------------------------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message for each SuperNode that hosts clients of this round's cohort."""
        size = cohort_size(len(self.weights), self.fraction_train, self.min_clients)
        cohort = sample_cohort(self.weights, size, seed=self.seed, server_round=server_round)
        weights = normalised({client: self.weights[client] for client in cohort})
        self._state = arrays_to_state(arrays)
        self.outcome = RoundOutcome(server_round, weights)
        return self._messages(MessageType.TRAIN, arrays, config, weights)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The next global model, or None for it where fewer than `min_clients` replies were good."""
        outcome = self.outcome
        template = {key: value for key, value in self._state.items() if value.is_floating_point()}
        total = WeightedSum(template)
        for message in replies:
            self._take(message, total, template)
        for client in outcome.weights:
            if client not in outcome.reports:
                outcome.reject(client, "no reply in time")
        for client, report in sorted(outcome.reports.items()):
            if report.rejected:
                log(WARNING, "round %d: client %d rejected: %s", server_round, client, report.rejected)
        for stray in outcome.strays:
            log(WARNING, "round %d: reply dropped: %s", server_round, stray)
        if len(outcome.good) < self.min_clients:
            return None, None
        self._step(total.mean())
        outcome.changed = True
        metrics = {"train-loss": outcome.train_loss, "clients": float(len(outcome.good))}
        return state_to_arrays(self._state), MetricRecord({k: v for k, v in metrics.items() if v is not None})

    def _messages(
        self, kind: str, arrays: ArrayRecord, config: ConfigRecord, weights: Mapping[int, float]
    ) -> list[Message]:
        by_node: dict[int, list[int]] = defaultdict(list)
        for client in sorted(weights):
            by_node[self.population.nodes[client]].append(client)
        messages = []
        for node, clients in by_node.items():
            shares = tuple(weights[client] for client in clients)
            instruction = Instruction(self.outcome.server_round, tuple(clients), shares)
            content = pack_instruction(instruction, arrays, config)
            self.outcome.bytes_down += tensor_bytes(content)
            group = str(self.outcome.server_round)
            messages.append(Message(content, node, kind, ttl=self.message_ttl, group_id=group))
        return messages

    def _clients_at(self, node: int) -> list[int]:
        return [client for client in self.outcome.weights if self.population.nodes[client] == node]

    def _open(self, message: Message) -> Reply | None:
        """The reply in a message, or None after rejecting those who should have been in it."""
        outcome, node = self.outcome, message.metadata.src_node_id
        asked = self._clients_at(node)
        answered = [client for client in asked if client in outcome.reports]
        if not asked or answered or message.metadata.group_id != str(outcome.server_round):
            outcome.strays.append(f"SuperNode {node} was not asked, answered twice, or answered another round")
            return None
        try:
            if message.has_error():
                raise ValueError(f"error {message.error.code}: {message.error.reason}")
            reply = unpack_reply(message.content)
            if sorted(report.client for report in reply.reports) != asked:
                raise ValueError("it is not about the clients that were asked")
        except Exception as error:  # whatever a client sends must cost no more than its own update
            for client in asked:
                outcome.reject(client, f"bad reply: {text(error) or type(error).__name__}")
            return None
        outcome.bytes_up += tensor_bytes(message.content)
        return reply

    def _take(self, message: Message, total: WeightedSum, template: State) -> None:
        """Screen one reply and add what is good in it."""
        reply = self._open(message)
        if reply is None:
            return
        outcome = self.outcome
        good = [report.client for report in reply.reports if report.rejected is None]
        weights = [outcome.weights[client] for client in good]
        fault: str | None = None
        if reply.form == "update" and len(good) == 1:
            fault = screen(reply.arrays, template, max_norm=self.max_update_norm)
            if fault is None:
                total.add(reply.arrays, weights[0])
        elif reply.form == "sum" and good and len(reply.reports) > 1:
            fault = total.screen_partial(reply.arrays, weights, max_norm=self.max_update_norm)
            if fault is None:
                total.add_partial(reply.arrays, weights)
        elif good:
            fault = f"bad reply: form {reply.form!r} for {len(good)} clients"
        for report in reply.reports:
            outcome.reports[report.client] = report
            if fault and report.rejected is None:
                outcome.reject(report.client, fault)

    def _step(self, mean: State) -> None:
        """Move the global model: the optimizer descends along the negative mean update."""
        if self._optimizer is None:
            self._parameters = {name: nn.Parameter(self._state[name].clone()) for name in self._names}
            self._optimizer = self._make_optimizer(list(self._parameters.values()))
        for name, parameter in self._parameters.items():
            parameter.data.copy_(self._state[name])
            parameter.grad = -mean[name].to(parameter.dtype)
        self._optimizer.step()
        for name, update in mean.items():
            if name in self._parameters:
                self._state[name] = self._parameters[name].detach().clone()
            else:
                self._state[name] = self._state[name] + update.to(self._state[name].dtype)

    # --- evaluation on the clients ------------------------------------------------------------------------------

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask every client, of the whole population, to judge the global model on its validation split."""
        self.outcome = RoundOutcome(server_round, normalised(self.weights))
        return self._messages(MessageType.EVALUATE, arrays, config, self.outcome.weights)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Metrics over all clients that replied; None if nobody has a validation split."""
        for message in replies:
            if reply := self._open(message):
                self.outcome.reports.update({report.client: report for report in reply.reports})
        figures = federated_metrics(self.outcome.good, self.main_metric)
        return MetricRecord({k: v for k, v in figures.items() if v is not None}) or None
