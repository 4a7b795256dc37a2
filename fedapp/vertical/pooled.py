"""The network of a vertical run trained in one process on joined data: what a federation is held against, and what an
attacker's view of gradients and embeddings is taken from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fedapp.common.seeding import derive_seed, generator
from fedapp.config import Config
from fedapp.data.party_table import PartySource, PartyTable
from fedapp.data.source import Pooled, Schema
from fedapp.learning.build import optimizer_factory
from fedapp.learning.training import minibatches
from fedapp.vertical.clear_matching import rows_by_party
from fedapp.vertical.parts import Learner, build_part
from fedapp.vertical.vertical_options import VerticalOptions

__all__ = ["OneParty", "PooledTraining", "Seen"]

# By epoch, the gradient (B, embedding) that parties would get in a batch, and the true targets of the batch.
Seen = Callable[[int, Tensor, Tensor], None]


class OneParty(PartySource):
    """The label party of a data set, by itself."""

    def __init__(self, options: VerticalOptions) -> None:
        self._options = options

    @property
    def party_names(self) -> tuple[str, ...]:
        return (self._options.label_party,)

    @property
    def labelled(self) -> str:
        return self._options.label_party

    def schema(self) -> Schema:
        return self._options.source.schema()

    def pooled(self) -> Pooled:
        return self._options.source.pooled()

    def table(self, party: str, label_party: str) -> PartyTable:
        return self._options.source.table(party, label_party)


@dataclass
class PooledTraining:
    """Over the parties `names`; matches in the clear."""

    config: Config
    options: VerticalOptions
    names: Sequence[str]

    def __post_init__(self) -> None:
        source, labelled = self.options.source, self.options.label_party
        self.tables: dict[str, PartyTable] = {name: source.table(name, labelled) for name in self.options.names}
        self.table = self.tables[labelled]
        assert self.table.targets is not None
        assert self.table.held_out is not None
        rows = self._entities()
        held = self.table.held_out[rows[labelled]]
        seed = derive_seed(self.config.run.seed, "entities", self.table.sha256())
        order = torch.randperm(len(held), generator=torch.Generator().manual_seed(seed))
        self.train_rows = {name: found[order[~held[order]]] for name, found in rows.items()}
        self.test_rows = {name: found[order[held[order]]] for name, found in rows.items()}
        self.true_targets = self.table.targets[self.train_rows[labelled]]
        classes = len(self.options.task.schema.classes)
        self.targets = self.options.label_privacy.training_targets(self.true_targets, classes)
        self.learners: dict[str, Learner] = {
            name: build_part(
                self.config,
                self.options,
                self.tables[name],
                self.train_rows[name],
                self.targets if name == labelled else None,
            )
            for name in self.names
        }

    def _entities(self) -> dict[str, Tensor]:
        """By party, its row of each entity, -1 for none, in the order of the label party's rows."""
        found = rows_by_party(self.tables, self.table.name, self.config.vertical.normalise)
        if self.config.vertical.unmatched == "drop":
            kept = torch.stack(list(found.values())).min(0).values >= 0
            found = {name: rows[kept] for name, rows in found.items()}
        return found

    def train(self, seen: Seen = lambda epoch, gradient, targets: None) -> None:
        """All epochs of the config, as the parties would train. What is `seen` has the label party's noise."""
        parameters = [parameter for learner in self.learners.values() for parameter in learner.part.parameters]
        optimizer = optimizer_factory("optimizer", self.config.optimizer)(parameters)
        size, seed = self.config.train.batch_size, self.config.run.seed
        for epoch in range(1, self.config.federation.num_rounds * self.config.train.local_epochs + 1):
            for batch in minibatches(len(self.targets), size, generator(seed, "batches", epoch)):
                self._step(optimizer, batch, partial(self._tell, seen, epoch, batch))

    def _tell(self, seen: Seen, epoch: int, batch: Tensor, sent: Tensor) -> None:
        seen(epoch, sent, self.true_targets[batch])

    def _step(self, optimizer: torch.optim.Optimizer, batch: Tensor, seen: Callable[[Tensor], None]) -> None:
        """The label party's own parts have the gradients as they are, the others what it sends them."""
        labelled = self.table.name
        parts = self.embeddings({name: rows[batch] for name, rows in self.train_rows.items()})
        cut = {name: value.detach().requires_grad_() for name, value in parts.items() if name != labelled}
        own = {name: value for name, value in parts.items() if name == labelled}
        head = self.learners[labelled].head
        assert head is not None
        optimizer.zero_grad(set_to_none=True)
        self.options.task.loss(head.outputs({**own, **cut}), self.targets[batch]).backward()  # type: ignore[no-untyped-call]
        privacy = self.options.label_privacy
        for number, (name, leaf) in enumerate(cut.items()):
            assert leaf.grad is not None
            sent = privacy.gradient(leaf.grad, self.targets[batch])
            if number == 0:
                seen(sent)
            parts[name].backward(sent)  # type: ignore[no-untyped-call]
        optimizer.step()

    def embeddings(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """By party, those of its rows."""
        return {
            name: learner.bottom.forward(rows[name])
            for name, learner in self.learners.items()
            if learner.bottom is not None
        }

    @torch.no_grad()
    def judge(self) -> dict[str, float]:
        """The task's metrics on the held-out entities."""
        scores = self.outputs(self.test_rows)
        return {name: metric(scores, self.test_targets) for name, metric in self.options.task.metrics.items()}

    @torch.no_grad()
    def outputs(self, rows: dict[str, Tensor]) -> Tensor:
        """(n, *output_shape) of entities, by party its row of each."""
        for learner in self.learners.values():
            learner.part.net.eval()
        head = self.learners[self.table.name].head
        assert head is not None
        return head.outputs(self.embeddings(rows))

    @property
    def test_targets(self) -> Tensor:
        assert self.table.targets is not None
        return self.table.targets[self.test_rows[self.table.name]]
