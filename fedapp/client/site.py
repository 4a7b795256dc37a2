"""A SuperNode's side: it hosts clients, trains and evaluates each, and adds up their updates."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedapp.aggregation.exact_sum import WeightedSum, screen
from fedapp.client.heads import Heads
from fedapp.common.code_digest import code_digest, code_path
from fedapp.common.errors import FedappError
from fedapp.data.resident import Resident
from fedapp.data.shards import ClientData, Shards, moments
from fedapp.learning.task import Task
from fedapp.learning.training import TrainingResult
from fedapp.models.shared_state import load_tensors, personal_state, shared_state
from fedapp.privacy.budget import Ledgers
from fedapp.wire.instruction import Instruction
from fedapp.wire.preflight import MOMENTS, PreflightReport
from fedapp.wire.reply import ClientReport, Reply

__all__ = ["Account", "Kept", "Site", "State"]

log = logging.getLogger("flwr")
State = Mapping[str, Tensor]
Training = Callable[..., TrainingResult]  # (model, examples, *, seed, lr_factor)


@dataclass(frozen=True)
class Account:
    """Where clients write what a training costs them in privacy: each one's ledger, and the name of this run."""

    run: str
    ledgers: Ledgers


@dataclass(frozen=True)
class Kept:
    """What clients keep from message to message: accounts under differential privacy, heads where they are personal."""

    account: Account | None = None
    heads: Heads | None = None


NOTHING = Kept()


class Site:
    """What a SuperNode has: its clients' data, one model that they take turns with, and how they train it.

    `model` is the part of `whole` that is trained. `features`, where the rest is frozen, makes of a client's examples
    what `model` takes; `backbone` is that part's digest.
    """

    def __init__(
        self,
        *,
        shards: Shards,
        task: Task,
        whole: nn.Module,
        model: nn.Module,
        training: Training,
        seed: int,
        max_update_norm: float | None = None,
        features: Callable[[int, ClientData], ClientData] | None = None,
        backbone: str = "",
    ) -> None:
        self.shards, self.task = shards, task
        self.whole, self.model, self.training = whole, model, training
        self.seed, self.max_update_norm = seed, max_update_norm
        self.features, self.backbone = features, backbone
        # The model's own tensors, which training and loading change in place: looked up once, and not for each client.
        self._shared, self._head = shared_state(model), personal_state(model)
        self._resident = Resident(next(iter(self._shared.values())).device)
        self._first_head = {name: value.clone() for name, value in self._head.items()}

    def census(self, clients: Sequence[int]) -> PreflightReport:
        """Of the clients that are hosted here, how many training examples each has, and what is wrong with its data.

        Raises FedappError for what is wrong with a simulation's data as a whole.
        """
        if self.shards.is_pooled:
            self.shards.load()
        counts: list[int] = []
        faults: list[str] = []
        rows: list[tuple[Tensor, ...]] = []
        width = self.task.schema.input_shape[0]
        for client in clients:
            try:
                train = self.shards.of(client).train
            except FedappError as error:
                counts.append(0)
                faults.append(str(error))
                rows.append((torch.zeros(width),) * 3)
                continue
            counts.append(len(train))
            faults.append("")
            if self.task.schema.scaling.kind == "federated":
                found = moments(train)
                rows.append((found.count, found.mean, found.squares))
        columns: dict[str, Tensor] = {}
        if self.task.schema.scaling.kind == "federated" and rows:
            columns = {name: torch.stack([row[i].double() for row in rows]) for i, name in enumerate(MOMENTS)}
        return PreflightReport(
            code_digest(),
            code_path(),
            tuple(clients),
            tuple(counts),
            tuple(faults),
            moments=columns,
            backbone=self.backbone,
        )

    def train(self, instruction: Instruction, state: State, kept: Kept = NOTHING) -> Reply:
        """Train every client asked for, from the same global model, and add their updates up.

        Several good clients give one fixed-point sum, unless the server wants each update; a single one gives its
        update as it is. A client that fails is rejected alone.
        """
        template = {key: value for key, value in state.items() if value.is_floating_point()}
        single = instruction.each or len(instruction.clients) == 1
        total = WeightedSum({} if single else template)
        reports: list[ClientReport] = []
        updates: dict[int, State] = {}
        for client, weight in zip(instruction.clients, instruction.weights, strict=True):
            report, update = self._train_one(client, instruction, state, template, kept)
            reports.append(report)
            if update and single:
                updates[client] = update
            elif update:
                total.add(update, weight)
        return Reply(tuple(reports), updates, total.totals if total.weights else {})

    def train_one(
        self, client: int, instruction: Instruction, state: State, template: State, kept: Kept = NOTHING
    ) -> tuple[ClientReport, State]:
        """Train one client: its report, and its update, empty where there is none to send. `template`: what is
        aggregated of `state`."""
        return self._train_one(client, instruction, state, template, kept)

    def evaluate(self, instruction: Instruction, state: State, kept: Kept = NOTHING) -> Reply:
        """Judge the global model on the validation split of every client asked for."""
        done = instruction.server_round
        return Reply(tuple(self._report(client, state, kept, done) for client in instruction.clients))

    def load(self, client: int, state: State, kept: Kept, server_round: int) -> None:
        """The global model, with the head that the client had after `server_round` where heads are personal."""
        load_tensors(self._shared, state, "the global model")
        if kept.heads is not None:
            head = kept.heads(client).after(server_round)
            load_tensors(self._head, self._first_head if head is None else head, "the client's own head")

    def _data(self, client: int) -> ClientData:
        data = self.shards.of(client)
        return self._resident(client, self.features(client, data) if self.features is not None else data)

    def _report(self, client: int, state: State, kept: Kept, server_round: int) -> ClientReport:
        """A report of the model after `server_round` on one client's validation split."""
        start = time.perf_counter()
        try:
            data = self._data(client)
            self.load(client, state, kept, server_round)
            judged = self.task.evaluate(self.model, data.validation, only_main=True)
        except Exception as error:
            return self._failed(client, error)
        return ClientReport(
            client,
            num_examples=len(data.train),
            seconds=time.perf_counter() - start,
            val_examples=judged.num_examples if judged else 0,
            val_loss=judged.loss if judged else None,
            val_metric=judged.metrics[self.task.main_metric] if judged else None,
        )

    def _train_one(
        self, client: int, instruction: Instruction, state: State, template: State, kept: Kept
    ) -> tuple[ClientReport, dict[str, Tensor]]:
        start = time.perf_counter()
        before = self._report(client, state, kept, instruction.server_round - 1)
        if before.rejected:
            return before, {}
        try:
            seed = (self.seed, instruction.server_round, client)
            examples = self._data(client).train
            result = self.training(self.model, examples, seed=seed, lr_factor=instruction.lr_factor)
            local = torch._foreach_sub([self._shared[key].cpu() for key in template], list(template.values()))
            update = dict(zip(template, local, strict=True))
            fault = screen(update, template, max_norm=self.max_update_norm)
            fault = fault or screen(self._head, self._first_head, max_norm=None)
            if kept.heads is not None and not fault:
                kept.heads(client).keep(instruction.server_round, self._head)
        except Exception as error:
            return self._failed(client, error), {}
        report = ClientReport(
            client,
            rejected=fault,
            num_examples=before.num_examples,
            steps=result.steps,
            seconds=time.perf_counter() - start,
            train_loss=result.loss,
            val_examples=before.val_examples,
            val_loss=before.val_loss,
            val_metric=before.val_metric,
        )
        return report, {} if fault else update

    def _failed(self, client: int, error: Exception) -> ClientReport:
        """A rejection. Of an unforeseen error only its kind leaves this machine: its text may hold data."""
        log.error("client %d failed", client, exc_info=error)
        known = isinstance(error, FedappError)
        return ClientReport(client, rejected=str(error) if known else f"{type(error).__name__} (see the client's log)")
