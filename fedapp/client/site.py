"""A SuperNode's side of a round: it hosts clients, and trains and evaluates each."""

import math
import time
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from fedapp.aggregation.exact_sum import examine
from fedapp.client.client_storage import ClientStorage
from fedapp.client.own_models import OwnModels
from fedapp.common.seeding import derive_seed
from fedapp.common.state_digest import State
from fedapp.data.resident import Resident
from fedapp.data.shards import ClientData, Shards
from fedapp.data.source import Examples
from fedapp.learning.build import Parts
from fedapp.learning.metrics import averaged
from fedapp.learning.task import Evaluation
from fedapp.models.shared_state import load_tensors, personal_state, shared_state
from fedapp.privacy.protection import Declined, Protection
from fedapp.updates.difference_codec import DifferenceCodec
from fedapp.updates.step import UpdateRejected
from fedapp.updates.steps import UpdateSteps
from fedapp.updates.vectors import difference
from fedapp.wire.instruction import Instruction
from fedapp.wire.reply import ClientReport, Reply

__all__ = ["Site"]

NOTHING = ClientStorage()


class Site:
    """What a SuperNode has: its clients' data, one model that they take turns with, and how they train it.

    `parts.model` is the part of `parts.whole` that is trained. `features`, where the rest is frozen, makes of a
    client's examples what the model takes; `backbone` is that part's digest. `steps` are what is done to an update
    before it is sent, `codec` is what differences of models come in, where they do. `on_device`: the data is real, so
    errors tell the server no more than their kind.
    """

    def __init__(
        self,
        parts: Parts,
        shards: Shards,
        protection: Protection,
        steps: UpdateSteps,
        *,
        seed: int,
        on_device: bool = False,
        features: Callable[[int, ClientData], ClientData] | None = None,
        backbone: str = "",
        own: OwnModels | None = None,
        codec: DifferenceCodec | None = None,
    ) -> None:
        self.parts, self.task, self.whole, self.model = parts, parts.task, parts.whole, parts.model
        self.shards, self.protection, self.steps, self.seed = shards, protection, steps, seed
        self.features, self.backbone, self.on_device = features, backbone, on_device
        # The model's own tensors, which training and loading change in place: looked up once, and not for each client.
        self.own, self.codec = own, codec
        self._shared, self._head = shared_state(self.model), personal_state(self.model)
        self._parameters = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        self._resident = Resident(next(iter(self._shared.values())).device)
        self._first_head = {name: value.clone() for name, value in self._head.items()}

    def train(
        self, client: int, instruction: Instruction, model: State, storage: ClientStorage = NOTHING
    ) -> tuple[ClientReport, State]:
        """Train one client from the global `model`: its report, and its update as it is to be sent, empty where there
        is none."""
        start, server_round = time.perf_counter(), instruction.server_round
        try:
            spent = self.protection.pay(client, server_round, self._count(client), storage.account)
        except Declined:
            return ClientReport(client, declined=True), {}
        except Exception as error:
            return self.protection.failure(client, error), {}
        before = self._validate(client, model, storage, server_round - 1)
        if before.rejected is not None:
            return replace(before, privacy=spent), {}
        template = {key: value for key, value in model.items() if value.is_floating_point()}
        try:
            measured = self.protection.measured(lambda: self._evaluated(client))
            seed, examples = (self.seed, server_round, client), self.data(client).train
            loss = self._loss(examples) if self.steps.judges else math.nan
            result = self.protection.training(self.model, examples, seed=seed, lr_factor=instruction.lr_factor)
            update = difference(self._shared, template)
            sent, fault = self._finished(client, update, measured, template, instruction, storage, loss)
            if storage.heads is not None and fault is None:
                if self.own is None:
                    storage.heads(client).keep(server_round, self._head)
                elif self.own.rule.every_round:
                    self.own.train_on(self, client, instruction, model, storage.heads(client))
        except Exception as error:
            return replace(self.protection.failure(client, error), privacy=spent), {}
        report = replace(
            before,
            rejected=fault,
            steps=result.steps,
            seconds=time.perf_counter() - start,
            train_loss=result.loss,
            privacy=spent,
        )
        return self.protection.disclosed(report), sent

    def _finished(
        self,
        client: int,
        update: dict[str, Tensor],
        measured: State,
        template: State,
        instruction: Instruction,
        storage: ClientStorage,
        loss: float,
    ) -> tuple[State, str | None]:
        """An update after its steps, with what else is `measured`, and why it must not be sent, None if it may. `loss`:
        what `UpdateSteps.judged` takes."""
        fault = examine(update, template).fault or examine(self._head, self._first_head).fault
        if fault is not None:
            return {}, fault
        update = self.protection.update(update, self._parameters, len(self.shards.of(client).train))
        states = storage.step_states.of(client, instruction.server_round) if storage.step_states is not None else {}
        weight = instruction.weights[instruction.clients.index(client)]
        try:
            steps = self.steps.judged(loss, instruction.lr_factor)
            seed = derive_seed(self.seed, "codec", instruction.server_round, client)
            given = {**update, **measured}
            sent = steps.on_client(given, template, weight, instruction.plan, states, seed, in_place=True)
        except UpdateRejected as error:
            return {}, str(error)
        again = self.steps.summable and not self.steps.bounded
        if again and (fault := examine(sent, self.steps.template(template)).fault) is not None:
            return {}, fault
        if storage.step_states is not None:
            storage.step_states.keep(client, instruction.server_round, states)
        return sent, None

    def _loss(self, examples: Examples) -> float:
        """The mean loss of the model as it is; of text without all logits at once."""
        return self.task.judge(self.model, examples)[0]

    def judge(self, instruction: Instruction, model: State, storage: ClientStorage) -> Reply:
        """The global model's loss on the training examples of every client asked for, where that may be told."""
        return Reply(tuple(self._judged(client, instruction, model, storage) for client in instruction.clients))

    def _judged(self, client: int, instruction: Instruction, model: State, storage: ClientStorage) -> ClientReport:
        try:
            self.load(client, model, storage, instruction.server_round - 1)
            if not self.protection.discloses_metrics:
                return ClientReport(client)
            return ClientReport(client, train_loss=self._loss(self.data(client).train))
        except Exception as error:
            return self.protection.failure(client, error)

    def evaluate(self, instruction: Instruction, model: State, storage: ClientStorage = NOTHING) -> Reply:
        """Judge the global model on the validation split of every client asked for."""
        done = instruction.server_round
        reports = tuple(self._validate(client, model, storage, done) for client in instruction.clients)
        if self.own is not None and storage.heads is not None:
            reports = tuple(self.own.judged(self, report, instruction, model, storage.heads) for report in reports)
        return Reply(reports)

    def load(self, client: int, model: State, storage: ClientStorage, server_round: int) -> None:
        """The global model, with the head that the client had after `server_round` where heads are personal."""
        load_tensors(self._shared, model, "the global model")
        if storage.heads is not None and self.own is None:
            head = storage.heads(client).after(server_round)
            load_tensors(self._head, self._first_head if head is None else head, "the client's own head")

    def _count(self, client: int) -> int:
        """How many training examples a client has; 0 where they cannot be had and nobody is to learn that."""
        try:
            return len(self.shards.of(client).train)
        except Exception:
            if not self.protection.hides_failures:
                raise
            return 0

    def load_result(self, client: int, model: State, storage: ClientStorage, server_round: int) -> None:
        """What the client is to use: its own model where it has one, else as `load`."""
        self.load(client, model, storage, server_round)
        own = storage.heads(client).after(server_round) if self.own is not None and storage.heads is not None else None
        if own is not None:
            load_tensors(self._shared, own, "the client's own model")

    def data(self, client: int) -> ClientData:
        data = self.shards.of(client)
        return self._resident(client, self.features(client, data) if self.features is not None else data)

    def _validate(self, client: int, model: State, storage: ClientStorage, server_round: int) -> ClientReport:
        """Load the model after `server_round`; what it does on the client's validation split, where that is told."""
        start = time.perf_counter()
        try:
            self.load(client, model, storage, server_round)
            if not self.protection.discloses_metrics:
                return ClientReport(client)
            judged, num_examples = self._evaluated(client), len(self.data(client).train)
        except Exception as error:
            return self.protection.failure(client, error)
        return ClientReport(
            client,
            num_examples=num_examples,
            seconds=time.perf_counter() - start,
            val_examples=judged.num_examples if judged else 0,
            val_loss=judged.loss if judged else None,
            val_metrics=averaged(self.task.metrics, judged.metrics) if judged else {},
        )

    def _evaluated(self, client: int) -> Evaluation | None:
        """What the model as it is now does on a client's validation split."""
        return self.task.evaluate(self.model, self.data(client).validation)
