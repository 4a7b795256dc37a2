"""The runs of a comparison, each a real run of the local engine with a run directory of its own, and what its models
say of the rows that are held out."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from fedapp.client.storage import kept_states
from fedapp.common.errors import FedappError
from fedapp.common.override_text import quoted
from fedapp.compare.compared_arms import ComparedArm, run_overrides
from fedapp.compare.held_out_rows import Judged, Sites
from fedapp.config import compose
from fedapp.data.shards import Split
from fedapp.launch.check import Ready, check
from fedapp.launch.local.engine import LocalEngine
from fedapp.learning.build import Parts
from fedapp.models.shared_state import load_tensors
from fedapp.server.check_config import Checked

__all__ = ["ArmRunner", "ArmRuns", "facts_of", "run_arm", "run_to_end"]

Tell = Callable[[str], None]


@dataclass
class ArmRuns:
    """What came of an arm. `outputs`: by site (or the server's test data) and by seed, of each model that is judged
    there (n, *output_shape); a site alone has one model, and the test data is judged by all of them. `faults`: by the
    same names, why there is none, or what is odd with it."""

    arm: ComparedArm
    outputs: dict[str, list[list[Tensor]]] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    held_out: dict[str, set[str]] = field(default_factory=dict)  # by site, digests of the rows that models were given
    runs: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # on the arm as a whole

    def add(self, name: str, seed: int, output: Tensor) -> None:
        by_seed = self.outputs.setdefault(name, [])
        while len(by_seed) <= seed:
            by_seed.append([])
        by_seed[seed].append(output)

    def note(self, name: str, text: str) -> None:
        if text not in (said := self.faults.setdefault(name, [])):
            said.append(text)


ArmRunner = Callable[[LocalEngine, ComparedArm, Sites, Sequence[int], Path, Tell], ArmRuns]


def run_arm(
    engine: LocalEngine, arm: ComparedArm, sites: Sites, seeds: Sequence[int], directory: Path, tell: Tell
) -> ArmRuns:
    """All runs of an arm. A run that fails is told of in `faults`, and the others go on."""
    found = ArmRuns(arm)
    for number, seed in enumerate(seeds):
        overrides, folder = run_overrides(arm, seed, directory)
        if arm.owner == "alone":
            for site, judged in enumerate(sites.judged):
                tell(f"{arm.name}, seed {seed}: {judged.name}")
                own = folder / f"site-{site:03d}"
                run = _run(engine, overrides, own, sites.alone(site), {judged.name: 0}, found)
                _judge(found, run, number, [judged], sites)
        else:
            tell(f"{arm.name}, seed {seed}")
            split = sites.pooled() if arm.owner == "all" else sites.federated()
            clients = {one.name: site if arm.owner == "federated" else 0 for site, one in enumerate(sites.judged)}
            run = _run(engine, overrides, folder, split, clients, found)
            _judge(found, run, number, sites.judged, sites)
    return found


def run_to_end(
    engine: LocalEngine, overrides: Sequence[str], directory: Path, split: Split | None = None
) -> tuple[Ready | None, str]:
    """A run of the local engine, with the clients' examples where they are given; or None, and why it has not ended."""
    config = compose([*overrides, f"run.output_dir={quoted(directory)}"])
    run = engine.prepare(config, overrides, directory, report=False)
    try:
        ready = check(config, directory, given=split)
        status = run.follow(ready, lambda _: None)
    except FedappError as error:
        return None, str(error)
    finally:
        run.end()
    return (ready, "") if status.completed else (None, f"the run {status.words} ({run.log})")


@dataclass(frozen=True)
class _Finished:
    parts: Parts
    clients: Mapping[str, int]
    kept: Mapping[int, Mapping[str, Tensor]] | None  # by client, its own part of the model, where clients have one


def _run(
    engine: LocalEngine,
    overrides: Sequence[str],
    directory: Path,
    split: Split,
    clients: Mapping[str, int],
    found: ArmRuns,
) -> _Finished | None:
    ready, fault = run_to_end(engine, overrides, directory, split)
    if ready is None:
        for name in clients:
            found.note(name, fault)
        return None
    _note_rejections(directory, clients, found)
    found.runs.append(facts_of(directory))
    assert isinstance(ready.checked, Checked)
    parts, config = ready.checked.parts, ready.checked.config
    kept = None
    if (own := parts.personal.own) is not None and not found.notes:
        when = "in each round" if own.every_round else "at the end"
        found.notes.append(
            f"each client also trains a model of its own, {own.epochs} epoch{'s' if own.epochs > 1 else ''} {when}:"
            " work that the other arms do not have, and that is not among the steps"
        )
    if not parts.is_whole or parts.personal.own is not None:
        kept = {client: kept_states(directory, client) for client in range(config.federation.num_clients)}
    return _Finished(parts, clients, kept)


def _judge(found: ArmRuns, run: _Finished | None, seed: int, judged: Sequence[Judged], sites: Sites) -> None:
    if run is None:
        return
    for one in judged:
        found.held_out.setdefault(one.name, set()).add(one.examples.sha256())
        if len(one.examples) and _take_own(run, run.clients[one.name], one.name, found):
            found.add(one.name, seed, run.parts.task.judge(run.parts.whole, one.examples)[1])
    if sites.test is not None:
        if run.kept is None:
            found.held_out.setdefault(sites.test.name, set()).add(sites.test.examples.sha256())
            found.add(sites.test.name, seed, run.parts.task.judge(run.parts.whole, sites.test.examples)[1])
        else:
            found.note(sites.test.name, "is of no site, and sites have models of their own in this arm")


def _take_own(run: _Finished, client: int, name: str, found: ArmRuns) -> bool:
    """Put into the model what is a client's own; whether there is such a thing where there should be."""
    if run.kept is None:
        return True
    if (state := run.kept[client]) == {}:
        found.note(name, "has no model of its own: it never finished a training")
        return False
    own = run.parts.kept_tensors
    load_tensors(own, state, f"what client {client} keeps")
    return True


def _note_rejections(directory: Path, clients: Mapping[str, int], found: ArmRuns) -> None:
    """Of clients whose data or updates were refused, why."""
    names: dict[int, list[str]] = {}
    for name, client in clients.items():
        names.setdefault(client, []).append(name)
    for line in (directory / "clients.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        if row.get("rejected") and row["client"] in names:
            for name in names[row["client"]]:
                found.note(name, f"was left out of rounds: {row['rejected']}")
    for who, why in json.loads((directory / "summary.json").read_text("utf-8"))["faults"].items():
        for client, own in names.items():
            if who == f"client {client}":
                for name in own:
                    found.note(name, f"took no part: {why}")


def facts_of(directory: Path) -> dict[str, Any]:
    summary = json.loads((directory / "summary.json").read_text("utf-8"))
    rows = [json.loads(line) for line in (directory / "clients.jsonl").read_text("utf-8").splitlines()]
    keys = ("model_sha256", "seed", "seconds", "bytes_up", "bytes_down", "epsilon_max", "rounds")
    return {
        "directory": str(directory),
        **{key: summary.get(key) for key in keys},
        "steps": sum(int(row.get("steps") or 0) for row in rows if row.get("phase") != "final"),
    }
