"""The work that all arms of a comparison do, and what a run of an arm leaves: when each round ended, and its loss."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from stock_app.task import NETS

from fedapp.config import compose
from fedapp.learning.build import build_parts
from fedapp.learning.build_shards import build_shards
from fedapp.server.population.cohort import CohortRule

__all__ = ["Trace", "Work", "read_trace"]


@dataclass(frozen=True)
class Work:
    """`rounds` rounds of `experiment=bench_<model>` with `cohort` clients of `clients`, `warmup` of them not timed."""

    model: str
    cohort: int
    rounds: int
    warmup: int
    clients: int = 100
    examples: int = 100  # of each client
    extra: tuple[str, ...] = ()  # further overrides

    @property
    def overrides(self) -> list[str]:
        """The same work for scripts/run.py."""
        return [
            f"experiment=bench_{self.model}",
            f"federation.num_clients={self.clients}",
            f"federation.fraction_train={self.cohort / self.clients}",
            f"federation.num_rounds={self.rounds}",
            f"data.num_examples={self.clients * self.examples}",
            *self.extra,
        ]

    def write(self, place: Path) -> None:
        """What the other arms need, which know nothing of fedapp: the clients' examples, the initial model in the names
        of the plain network, and the rest as work.json."""
        config = compose(self.overrides)
        parts = build_parts(config)
        shards = build_shards(config, parts)
        clients = [shards.of(client).train for client in range(self.clients)]
        save_file(
            {
                "inputs": torch.stack([each.inputs for each in clients]),
                "targets": torch.stack([each.targets for each in clients]),
            },
            place / "data.safetensors",
        )
        names = [name for name, _ in NETS[self.model]().named_parameters()]
        initial = [parameter.detach() for parameter in parts.model.parameters()]
        save_file(dict(zip(names, initial, strict=True)), place / "initial.safetensors")
        rounds = range(1, self.rounds + 1)
        sampled = [CohortRule(seed=0).sample(range(self.clients), self.cohort, number) for number in rounds]
        settings = {"lr": config.optimizer["lr"], "batch_size": config.train.batch_size}
        (place / "work.json").write_text(json.dumps({**asdict(self), **settings, "cohorts": sampled}))


@dataclass(frozen=True)
class Trace:
    """One run of an arm. `start`: when its command was given; `ends`: when each round was over (Unix seconds);
    `losses`: mean training loss of each; `steps`: of training, all clients of a round together."""

    start: float
    ends: tuple[float, ...]
    losses: tuple[float, ...]
    steps: tuple[int, ...]

    @property
    def to_first_round(self) -> float:
        """Seconds from the command to the end of the first round."""
        return self.ends[0] - self.start

    def rounds(self, warmup: int) -> list[float]:
        """Seconds of every round after the first `warmup`."""
        return [end - before for before, end in zip(self.ends[warmup - 1 :], self.ends[warmup:], strict=False)]

    def seconds_a_round(self, warmup: int) -> float:
        return statistics.median(self.rounds(warmup))


def read_trace(start: float, lines: Sequence[dict[str, float]]) -> Trace:
    """Of lines with `time`, `loss` and `steps`, one a round."""
    return Trace(
        start,
        tuple(line["time"] for line in lines),
        tuple(line["loss"] for line in lines),
        tuple(int(line["steps"]) for line in lines),
    )
