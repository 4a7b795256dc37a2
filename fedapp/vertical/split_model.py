"""A network split over parties (Vepakomma et al. 2018): each has a bottom model of its own columns; the label party
also has the top model and the loss.

Activations travel forth and gradients back; put together, a step is that of the whole network on joined data.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedapp.common.seeding import seeded
from fedapp.learning.optimizer_step import make_optimizer, stepper
from fedapp.vertical.fusion import Fusion

__all__ = ["Bottom", "Embedded", "LabelHead", "Part", "build_top"]

Loss = Callable[[Tensor, Tensor], Tensor]
EVALUATION_BATCH = 4096


def build_top(hidden: Sequence[int] | None, width: int, outputs: int) -> nn.Module:
    """From a fused embedding (B, width) to (B, outputs): ReLU, hidden layers, a linear layer. None: the embedding is
    the output, as in a generalised linear model."""
    if hidden is None:
        return nn.Identity()
    layers: list[nn.Module] = [nn.ReLU()]
    for units in hidden:
        layers += [nn.Linear(width, units), nn.ReLU()]
        width = units
    return nn.Sequential(*layers, nn.Linear(width, outputs))


class Part:
    """The parameters that one party trains, and its optimizer. `net`: the party's whole part of the model."""

    def __init__(self, net: nn.Module, optimizer: Callable[..., torch.optim.Optimizer]) -> None:
        self.net = net
        self.parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
        self.optimizer = make_optimizer(optimizer, self.parameters) if self.parameters else None
        self._rates = [group["lr"] for group in self.optimizer.param_groups] if self.optimizer is not None else []

    def step(self, gradients: Sequence[Tensor | None], lr_factor: float) -> None:
        if self.optimizer is None:
            return
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * lr_factor
        stepper(self.optimizer)(gradients)

    def state(self) -> dict[str, Tensor]:
        """Everything that training goes on from: model/NAME, and optimizer/INDEX/SLOT."""
        found = {f"model/{name}": value.detach().clone() for name, value in self.net.state_dict().items()}
        slots: Mapping[int, Mapping[str, Any]] = self.optimizer.state_dict()["state"] if self.optimizer else {}
        for index, values in slots.items():
            for name, value in values.items():
                if value is not None:
                    found[f"optimizer/{index}/{name}"] = torch.as_tensor(value).detach().clone()
        return found

    def load(self, state: Mapping[str, Tensor]) -> None:
        own = {name.removeprefix("model/"): value for name, value in state.items() if name.startswith("model/")}
        self.net.load_state_dict(own)
        if self.optimizer is None:
            return
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            if name.startswith("optimizer/"):
                _, index, slot = name.split("/", 2)
                slots.setdefault(int(index), {})[slot] = value.clone()
        self.optimizer.load_state_dict({"state": slots, "param_groups": self.optimizer.state_dict()["param_groups"]})


@dataclass(frozen=True)
class Bottom:
    """A party's bottom model over its `inputs` (n, columns). A row of -1 is an entity that the party does not have:
    its embedding is 0."""

    net: nn.Module
    inputs: Tensor
    embedding: int

    def forward(self, rows: Tensor) -> Tensor:
        """(B, embedding), with gradients where they are on."""
        known = rows >= 0
        if bool(known.all()):
            found: Tensor = self.net(self.inputs[rows])
            return found
        full = torch.zeros(len(rows), self.embedding)
        return (
            full.index_put((known.nonzero().squeeze(1),), self.net(self.inputs[rows[known]])) if known.any() else full
        )

    def forward_seeded(self, rows: Tensor, seed: tuple[int | str, ...]) -> Tensor:
        """The same, with dropout as `seed` has it."""
        with seeded(*seed):
            return self.forward(rows)

    def embed(self, rows: Tensor, seed: tuple[int | str, ...]) -> "Embedded":
        """The embeddings of a training batch. Buffers stay as they are until there is a gradient."""
        self.net.train()
        before = {name: value.clone() for name, value in self.net.named_buffers()}
        found = self.forward_seeded(rows, seed)
        after = {}
        for name, value in self.net.named_buffers():
            if not torch.equal(value, before[name]):
                after[name] = value.clone()
                value.copy_(before[name])
        return Embedded(found, after)

    def gradients(
        self,
        part: Part,
        rows: Tensor,
        gradient: Tensor,
        seed: tuple[int | str, ...],
        embedded: "Embedded | None" = None,
    ) -> list[Tensor | None]:
        """Of the part's parameters, by the `gradient` (B, embedding) of the loss with respect to the embeddings.
        `embedded`: what `embed` gave of these rows, where parameters are as they were; without it the batch is gone
        through once more, to the same bits."""
        self.net.train()
        found = self.forward_seeded(rows, seed) if embedded is None else embedded.taken(self.net)
        if not found.requires_grad:  # no row of the batch is this party's
            return [None for _ in part.parameters]
        return list(torch.autograd.grad(found, part.parameters, gradient, allow_unused=True))

    @torch.no_grad()
    def judge(self, rows: Tensor) -> Tensor:
        """The embeddings of held-out entities, in evaluation mode."""
        self.net.eval()
        return torch.cat([self.forward(chunk) for chunk in torch.split(rows, EVALUATION_BATCH)])


@dataclass(frozen=True)
class Embedded:
    """The embeddings (B, embedding) of a batch with what their gradients need, and the buffers that going through it
    changes."""

    values: Tensor
    buffers: Mapping[str, Tensor]

    def taken(self, net: nn.Module) -> Tensor:
        """The embeddings, for gradients that are taken once."""
        for name, value in self.buffers.items():
            net.get_buffer(name).copy_(value)
        return self.values


@dataclass(frozen=True)
class LabelHead:
    """What the label party computes on top: the fused embeddings through `top`, and the loss."""

    top: nn.Module
    fusion: Fusion
    loss: Loss

    def outputs(self, parts: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = self.top(self.fusion.join(parts))
        return found

    def gradients(
        self, part: Part, own: tuple[str, Tensor] | None, received: Mapping[str, Tensor], targets: Tensor
    ) -> tuple[float, list[Tensor | None], dict[str, Tensor]]:
        """The loss, the gradients of the label party's own parameters, and those of what was `received`.

        `own`: the label party's name and embedding, where it has columns.
        """
        leaves = {name: value.detach().requires_grad_() for name, value in received.items()}
        mine = dict([own]) if own is not None else {}
        loss = self.loss(self.outputs({**mine, **leaves}), targets)
        wanted = [*part.parameters, *leaves.values()]
        found = torch.autograd.grad(loss, wanted, allow_unused=True)
        count = len(part.parameters)
        return float(loss.detach()), list(found[:count]), dict(zip(leaves, map(_present, found[count:]), strict=True))


def _present(gradient: Tensor | None) -> Tensor:
    assert gradient is not None  # every embedding is in the fused one
    return gradient
