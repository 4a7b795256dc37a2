"""The game of membership inference: many federations, in each of which a coin decides for every candidate example
whether the attacked client trains on it; and all that the server sees of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fedapp.common.seeding import generator
from fedapp.data.source import Examples
from fedapp.learning.task import Task
from fedapp.learning.training import TrainingResult

__all__ = ["Game", "Signals", "gradients", "membership", "play"]

Training = Callable[..., TrainingResult]  # (model, examples, *, seed)
GRADIENTS_AT_ONCE = 64


@dataclass(frozen=True)
class Signals:
    """What an attacker works with: of each of W worlds and m candidates a number that membership may have moved.

    `members` (W, m) bool. By what is looked at: `losses`, negative losses, (W, m) float64 (Yeom et al. 2018);
    `confidences`, the task's: of classes log p/(1 - p) of the true one (Carlini et al. 2022), else negative losses;
    `alignments`, how far the client's updates point along the negative gradient of the candidate (Nasr et al. 2023).
    """

    members: Tensor
    final_losses: Tensor
    final_confidences: Tensor
    update_losses: Tensor
    update_confidences: Tensor
    alignments: Tensor

    def worlds(self, start: int, end: int) -> "Signals":
        """Only worlds start..end-1."""
        return Signals(**{name: value[start:end] for name, value in vars(self).items()})


@dataclass(frozen=True)
class Game:
    """`candidates`: the examples in question, of which the attacked client has some half. `others`: the other clients'
    data, always the same. `model` is at its initial state."""

    task: Task
    model: nn.Module
    training: Training
    candidates: Examples
    others: Sequence[Examples]
    num_rounds: int
    seed: int


def membership(game: Game, world: int) -> Tensor:
    """(m,) bool: a fair coin for every candidate, of its own in every world."""
    return torch.rand(len(game.candidates), generator=generator(game.seed, "membership", world)) < 0.5


def play(game: Game, worlds: Sequence[int]) -> Signals:
    """Train the federation in each of `worlds`; every client takes part in every round, all with the same weight."""
    played = [_play(game, world) for world in worlds]
    return Signals(**{name: torch.stack([vars(one)[name] for one in played]) for name in vars(played[0])})


def _play(game: Game, world: int) -> Signals:
    members = membership(game, world)
    clients = [game.candidates.take(members.nonzero().flatten()), *game.others]
    start = {key: value.clone() for key, value in game.model.state_dict().items()}
    state, local = start, start
    alignments = torch.zeros(len(members), dtype=torch.float64)
    for server_round in range(1, game.num_rounds + 1):
        total = {key: torch.zeros_like(value) for key, value in state.items() if value.is_floating_point()}
        for client, examples in enumerate(clients):
            game.model.load_state_dict(state)
            if client == 0:
                directions = gradients(game.task, game.model, game.candidates)
            game.training(game.model, examples, seed=(game.seed, world, server_round, client))
            trained = {key: value.clone() for key, value in game.model.state_dict().items()}
            for key in total:
                total[key] += trained[key] - state[key]
            if client == 0:
                local = trained
                update = torch.cat([(trained[key] - state[key]).flatten() for key in directions])
                flat = torch.cat([value.flatten(1) for value in directions.values()], dim=1)
                alignments -= (flat @ update).double() / flat.norm(dim=1).clamp(min=1e-12)
        state = {key: value + total[key] / len(clients) if key in total else value for key, value in state.items()}
    seen = {}
    for name, looked_at in (("final", state), ("update", local)):  # the update, and so the local model, is seen by all
        game.model.load_state_dict(looked_at)
        seen[f"{name}_losses"], seen[f"{name}_confidences"] = _judge(game.task, game.model, game.candidates)
    game.model.load_state_dict(start)
    return Signals(members=members, alignments=alignments, **seen)


def _judge(task: Task, model: nn.Module, examples: Examples) -> tuple[Tensor, Tensor]:
    """Negative loss and confidence of each example, (m,) each."""
    model.eval()
    with torch.no_grad():
        outputs = model(examples.inputs).double()
    return -task.loss_per_example(outputs, examples.targets), task.confidences(outputs, examples.targets)


def gradients(task: Task, model: nn.Module, examples: Examples) -> dict[str, Tensor]:
    """By name of each trained parameter, the loss's gradient of each example: (m, *shape). In evaluation mode."""
    model.eval()
    parameters = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    rest = {name: value for name, value in model.state_dict().items() if name not in parameters}

    def loss(values: dict[str, Tensor], inputs: Tensor, target: Tensor) -> Tensor:
        outputs = functional_call(model, {**rest, **values}, (inputs[None],))
        return task.loss_per_example(outputs, target[None]).sum()

    each = vmap(grad(loss), in_dims=(None, 0, 0), chunk_size=GRADIENTS_AT_ONCE)
    found: dict[str, Tensor] = each(parameters, examples.inputs, examples.targets)
    return found
