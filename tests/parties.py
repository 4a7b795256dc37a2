"""Vertical runs in this process, and the same split network on joined data."""

import json
import shlex
import time
from pathlib import Path
from typing import Any

import torch
from in_process import InProcessGrid
from safetensors.torch import load_file
from torch import Tensor, nn

from fedapp.client.party.learners import build_learner
from fedapp.client.party.party_run import PartyRun, open_party_run
from fedapp.client.party.session_member import SessionMember
from fedapp.common.seeding import derive_seed, generator
from fedapp.config import compose
from fedapp.learning.training import minibatches
from fedapp.server.run import run_federation
from fedapp.vertical.session import Party

__all__ = ["PLAIN", "SMALL", "joined_training", "metrics_of", "parts_of", "run_on_grid", "run_parties_in", "summary_of"]

PLAIN = "task=vertical optimizer.momentum=0 vertical.embedding=4 model.hidden=[5] train.batch_size=64"
SMALL = f"{PLAIN} federation.num_rounds=1"


def run_parties_in(directory: Path, overrides: str, num_nodes: int = 2, **grid: Any) -> Path:
    """A whole run, whose parties keep their parts in `directory`."""
    line = f"{overrides} run.output_dir={directory}"
    return run_on_grid(InProcessGrid(line, num_nodes, **grid), directory, line)


def run_on_grid(grid: InProcessGrid, directory: Path, line: str) -> Path:
    given = shlex.split(line)
    run_federation(grid, compose(given), directory, time.perf_counter(), given, show=lambda *_: None)
    return directory


def parts_of(directory: Path) -> dict[str, dict[str, Tensor]]:
    return {path.name: load_file(path / "part.safetensors") for path in sorted((directory / "parties").iterdir())}


def metrics_of(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def summary_of(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "summary.json").read_text())
    return found


def joined_training(overrides: str, epochs: int, most_batches: int | None = None) -> dict[str, dict[str, Tensor]]:
    """The parts after training the same network in one place, with one optimizer, on joined data: by autograd through
    all of it, with nothing of the parties' own steps."""
    run = open_party_run(InProcessGrid(f"{overrides} run.output_dir=/nowhere", 1).contexts[100])
    learners, rows, targets = _built(run)
    names = run.options.names
    parameters = [p for name in names for p in learners[name].part.parameters]
    made = learners[names[0]].part.optimizer
    assert made is not None
    optimizer = type(made)(parameters, **{k: v for k, v in made.defaults.items() if k in ("lr", "momentum")})
    top = learners[run.options.label_party].head
    assert top is not None
    for epoch in range(1, epochs + 1):
        batches = minibatches(len(rows), run.config.train.batch_size, generator(run.config.run.seed, "batches", epoch))
        for batch in list(batches)[:most_batches]:
            embeddings = {}
            for name in names:
                bottom = learners[name].bottom
                assert bottom is not None
                embeddings[name] = bottom.net(bottom.inputs[rows[batch]])
            optimizer.zero_grad()
            run.options.task.loss(_fused(top.top, run, embeddings), targets[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return {name: dict(learners[name].part.net.state_dict()) for name in names}


def _fused(top: nn.Module, run: PartyRun, embeddings: dict[str, Tensor]) -> Tensor:
    parts = [embeddings[name] for name in sorted(embeddings)]
    fused = torch.stack(parts).sum(0) if run.options.fusion.additive else torch.cat(parts, 1)
    found: Tensor = top(fused)
    return found


def _built(run: PartyRun) -> tuple[dict[str, Any], Tensor, Tensor]:
    """All learners at their beginning, and the training entities in the label party's order."""
    table = run.table(run.options.label_party)
    assert table.held_out is not None
    assert table.targets is not None
    order = generator(0).manual_seed(derive_seed(run.config.run.seed, "entities", table.sha256()))
    rows = torch.randperm(len(table), generator=order)
    rows = rows[~table.held_out[rows]]
    learners = {}
    for client, name in enumerate(run.options.names):
        me = Party(name, client, name == run.options.label_party, 0, 0, b"")
        learners[name] = build_learner(run, SessionMember("", b"", me, rows={"train": rows}))
    return learners, rows, table.targets[rows]
