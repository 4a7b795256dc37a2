"""experiment=keyboard as a plain PyTorch loop in some processes: the same clients, batches of the same size and the
same optimizers, and nothing checked, recorded or sent.

    python -m benchmarks.plain_keyboard PLACE PROCESSES [overrides]
"""

import json
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.multiprocessing as processes
import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from fedapp.config import Config, compose
from fedapp.learning.build import build_parts
from fedapp.learning.build_shards import build_shards
from fedapp.server.population.cohort import CohortRule

__all__ = ["Trainer", "main"]


class Trainer:
    """One process's part: a model that its clients take turns with."""

    def __init__(self, config: Config) -> None:
        parts = build_parts(config)
        shards = build_shards(config, parts)
        self.net = parts.model
        self.clients = [shards.of(client).train for client in range(config.federation.num_clients)]
        self.lr, self.train = config.optimizer["lr"], config.train

    def __call__(self, state: Tensor, clients: list[int], factor: float) -> tuple[Tensor, int, int]:
        """The sum of the updates of `clients`, each times its windows; how many these are, and all steps."""
        total, windows, steps = torch.zeros_like(state), 0, 0
        for client in clients:
            vector_to_parameters(state.clone(), self.net.parameters())
            examples = self.clients[client]
            steps += self._epochs(examples.inputs, examples.targets, factor)
            total += (parameters_to_vector(self.net.parameters()).detach() - state) * len(examples)
            windows += len(examples)
        return total, windows, steps

    def _epochs(self, inputs: Tensor, targets: Tensor, factor: float) -> int:
        optimizer = torch.optim.SGD(self.net.parameters(), lr=self.lr * factor)
        self.net.train()
        steps = 0
        for _ in range(self.train.local_epochs):
            batches = list(torch.split(torch.randperm(len(targets)), self.train.batch_size))
            if len(batches) > 1 and len(batches[-1]) == 1:  # as fedapp does
                batches[-2:] = [torch.cat(batches[-2:])]
            for batch in batches:
                optimizer.zero_grad()
                wanted = targets[batch]
                losses = F.cross_entropy(self.net(inputs[batch]).flatten(0, 1), wanted.flatten(), reduction="none")
                counted = wanted > 1  # neither padding nor unknown
                losses = torch.where(counted, losses.view(wanted.shape), 0.0).sum(1) / counted.sum(1).clamp(min=1)
                losses.mean().backward()
                optimizer.step()
                steps += 1
        return steps


def _work(pipe: Connection, overrides: list[str], state: Tensor, total: Tensor) -> None:
    torch.set_num_threads(1)
    trainer = Trainer(compose(overrides))
    pipe.send(None)
    while (asked := pipe.recv()) is not None:
        trained, windows, steps = trainer(state, *asked)
        total.copy_(trained)
        pipe.send((windows, steps))


def main(place: Path, count: int, overrides: list[str]) -> None:
    config = compose(overrides)
    section = config.federation
    cohort = round(section.fraction_train * section.num_clients)
    state = parameters_to_vector(build_parts(config).model.parameters()).detach().clone().share_memory_()
    totals = [torch.zeros_like(state).share_memory_() for _ in range(count)]
    context = processes.get_context("spawn")
    ends = [context.Pipe() for _ in range(count)]
    workers = [
        context.Process(target=_work, args=(theirs, overrides, state, total), daemon=True)
        for (_, theirs), total in zip(ends, totals, strict=True)
    ]
    for worker in workers:
        worker.start()
    pipes = [ours for ours, _ in ends]
    for pipe in pipes:
        pipe.recv()
    weight = torch.nn.Parameter(state)
    given = config.strategy.server_optimizer
    server = torch.optim.SGD([weight], given["lr"], given["momentum"], nesterov=given["nesterov"])
    made = 0
    for number in range(1, section.num_rounds + 1):
        asked = CohortRule(seed=config.run.seed).sample(range(section.num_clients), cohort, number)
        for i, pipe in enumerate(pipes):
            pipe.send((list(asked)[i::count], 1.0))
        answers = [pipe.recv() for pipe in pipes]
        weight.grad = -torch.stack(totals).sum(0) / sum(windows for windows, _ in answers)
        server.step()
        made += sum(steps for _, steps in answers)
    for pipe, worker in zip(pipes, workers, strict=True):
        pipe.send(None)
        worker.join()
    (place / "plain.json").write_text(json.dumps({"steps": made}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
