"""The plain PyTorch loop that no simulator can beat by much: FedAvg in as many processes as there are cores.

    python -m benchmarks.ideal PLACE [PROCESSES]

Each process has the data and a model, trains its part of the cohort with tensors in memory, and adds the trained models
up; they share memory, and nothing is checked, recorded or sent. Rounds are noted in PLACE/ideal.jsonl.
"""

import json
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as processes
import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from safetensors.torch import load_file
from stock_app.task import NETS, examples
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from fedapp.common.cores import allowed_cores

__all__ = ["Trainer", "main"]


class Trainer:
    """One process's part: a model that its clients take turns with."""

    def __init__(self, place: Path, work: dict[str, Any]) -> None:
        self.inputs, self.targets = examples(str(place))
        self.net: nn.Module = NETS[work["model"]]()
        self.lr, self.batch_size = work["lr"], work["batch_size"]

    def initial(self, place: Path) -> list[Tensor]:
        """The initial model, in the order of the network's parameters."""
        found = load_file(place / "initial.safetensors")
        return [found[name] for name, _ in self.net.named_parameters()]

    def __call__(self, state: Tensor, clients: list[int]) -> tuple[Tensor, float, int]:
        """The sum of the models that `clients` make of `state`, the sum of their mean losses, and all steps."""
        total, loss, steps = torch.zeros_like(state), 0.0, 0
        for client in clients:
            vector_to_parameters(state.clone(), self.net.parameters())
            mean, done = self._epoch(self.inputs[client], self.targets[client])
            total += parameters_to_vector(self.net.parameters()).detach()
            loss, steps = loss + mean, steps + done
        return total, loss, steps

    def _epoch(self, inputs: Tensor, targets: Tensor) -> tuple[float, int]:
        optimizer = torch.optim.SGD(self.net.parameters(), lr=self.lr)
        losses = torch.zeros(())
        batches = torch.split(torch.randperm(len(targets)), self.batch_size)
        for batch in batches:
            optimizer.zero_grad()
            loss = F.cross_entropy(self.net(inputs[batch]), targets[batch])
            loss.backward()
            optimizer.step()
            losses += loss.detach()
        return float(losses) / len(batches), len(batches)


def _work(pipe: Connection, place: Path, work: dict[str, Any], state: Tensor, total: Tensor) -> None:
    torch.set_num_threads(1)
    trainer = Trainer(place, work)
    while (clients := pipe.recv()) is not None:
        trained, loss, steps = trainer(state, clients)
        total.copy_(trained)
        pipe.send((loss, steps))


def main(place: Path, count: int) -> None:
    """All rounds of PLACE/work.json in `count` processes."""
    work = json.loads((place / "work.json").read_text())
    state = torch.cat([value.reshape(-1) for value in Trainer(place, work).initial(place)]).share_memory_()
    totals = [torch.zeros_like(state).share_memory_() for _ in range(count)]
    context = processes.get_context("spawn")
    ends = [context.Pipe() for _ in range(count)]
    for (_, theirs), total in zip(ends, totals, strict=True):
        context.Process(target=_work, args=(theirs, place, work, state, total), daemon=True).start()
    pipes = [ours for ours, _ in ends]
    with (place / "ideal.jsonl").open("w") as file:
        for number, cohort in enumerate(work["cohorts"], start=1):
            for i, pipe in enumerate(pipes):
                pipe.send(cohort[i::count])
            answers = [pipe.recv() for pipe in pipes]
            state.copy_(torch.stack(totals).sum(0) / len(cohort))
            loss, steps = sum(loss for loss, _ in answers) / len(cohort), sum(steps for _, steps in answers)
            file.write(json.dumps({"round": number, "time": time.time(), "loss": loss, "steps": steps}) + "\n")
    for pipe in pipes:
        pipe.send(None)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else allowed_cores())
