"""Whole models that clients keep beside the global one (federation.personal=finetune, ditto)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from torch import nn

from fedapp.client.heads import Head
from fedapp.common.state_digest import State
from fedapp.data.shards import ClientData
from fedapp.learning.metrics import averaged
from fedapp.learning.task import Task
from fedapp.learning.training import LocalTraining
from fedapp.models.personal import OwnModel
from fedapp.models.shared_state import load_shared, shared_state
from fedapp.privacy.protection import Protection
from fedapp.wire.instruction import Instruction
from fedapp.wire.reply import ClientReport

__all__ = ["OwnModels"]


class Trains(Protocol):
    """The site: its model, which all clients take turns with, and their data."""

    model: nn.Module
    seed: int

    def data(self, client: int) -> ClientData: ...


class Judges(Trains, Protocol):
    task: Task
    protection: Protection


class OwnModels:
    """How the clients of a site train models of their own, from their data as plainly as `training` does."""

    def __init__(self, rule: OwnModel, training: LocalTraining) -> None:
        self.rule = rule
        # How frequent each class is here is part of what a model of the client's own is to know.
        self.training = replace(training, local_epochs=rule.epochs, proximal_mu=rule.mu, adjustment=None)
        # As an operator counts the work of one message: in a round the global model is trained, too.
        together = rule.epochs + (training.local_epochs if rule.every_round else 0)
        self.check_work = replace(training, local_epochs=together).check_work

    def train_on(self, site: Trains, client: int, instruction: Instruction, model: State, head: Head) -> None:
        """One round of a client's own model, which begins as the global `model`."""
        before = head.after(instruction.server_round - 1)
        self._train(site, client, instruction, model, model if before is None else before, head)

    def finish(self, site: Trains, client: int, instruction: Instruction, model: State, head: Head) -> None:
        """Leave the client's own model in the site's network, after the last round; trained now if it is its time."""
        done = instruction.server_round
        kept = head.after(done) if self.rule.every_round else head.of(done)
        if kept is None and not self.rule.every_round:
            self._train(site, client, instruction, model, model, head)
        else:  # a client that was never sampled has the global one
            load_shared(site.model, model if kept is None else kept)

    def judged(
        self, site: Judges, report: ClientReport, instruction: Instruction, model: State, heads: Callable[[int], Head]
    ) -> ClientReport:
        """With what the client's own model does on its validation split."""
        if report.rejected is not None:
            return report
        try:
            self.finish(site, report.client, instruction, model, heads(report.client))
            if not site.protection.discloses_metrics:
                return report
            found = site.task.evaluate(site.model, site.data(report.client).validation)
        except Exception as error:
            return site.protection.failure(report.client, error)
        return replace(report, own_metrics=averaged(site.task.metrics, found.metrics) if found else {})

    def will_train(self, instruction: Instruction, heads: Callable[[int], Head] | None) -> bool:
        """Whether an evaluation trains a client's own model."""
        if self.rule.every_round or heads is None:
            return False
        return any(heads(client).of(instruction.server_round) is None for client in instruction.clients)

    def _train(
        self, site: Trains, client: int, instruction: Instruction, model: State, start: State, head: Head
    ) -> None:
        load_shared(site.model, model)
        anchor = [value.detach().clone() for value in site.model.parameters() if value.requires_grad]
        load_shared(site.model, start)
        seed = (site.seed, "own", instruction.server_round, client)
        factor = instruction.lr_factor * self.rule.lr_factor
        self.training(site.model, site.data(client).train, seed=seed, lr_factor=factor, anchor=anchor)
        head.keep(instruction.server_round, shared_state(site.model))
