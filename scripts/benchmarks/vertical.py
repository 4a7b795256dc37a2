#!/usr/bin/env python3
"""The network of a vertical run trained in one process on joined data, and on the label party's columns alone.

    python scripts/benchmarks/vertical.py experiment=flights_vertical federation.num_rounds=4

Matches in the clear. Prints metrics on the held-out entities, the 95 % interval of the AUC, and seconds an epoch, to
hold against the same overrides in scripts/run.py.
"""

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor

from fedapp.client.party.learners import build_learner
from fedapp.client.party.party_run import PartyRun
from fedapp.client.party.session_member import Learner, SessionMember
from fedapp.common.seeding import derive_seed, generator
from fedapp.config import compose
from fedapp.learning.build import optimizer_factory
from fedapp.learning.training import minibatches
from fedapp.privacy.limits import OwnLimits
from fedapp.vertical.fusion import Sum
from fedapp.vertical.identities import joined
from fedapp.vertical.session import Party
from fedapp.vertical.vertical_options import vertical_options


def entities(run: PartyRun) -> dict[str, Tensor]:
    """By party, its row of each entity, -1 for none, in the order of the label party's rows."""
    labels, rule = run.options.label_party, run.config.vertical.normalise
    found = {labels: torch.arange(len(run.table(labels)))}
    for name in run.options.names:
        if name != labels:
            theirs = [joined(cells, rule) for cells in zip(*run.table(name).key(labels), strict=True)]
            places = {identity: row for row, identity in enumerate(theirs) if identity}
            own = (joined(cells, rule) for cells in zip(*run.table(labels).key(name), strict=True))
            found[name] = torch.tensor([places.get(identity, -1) for identity in own])
    if run.config.vertical.unmatched == "drop":
        kept = torch.stack(list(found.values())).min(0).values >= 0
        found = {name: rows[kept] for name, rows in found.items()}
    return found


def train(run: PartyRun, names: tuple[str, ...], rows: Mapping[str, Tensor]) -> tuple[dict[str, float], float]:
    """Metrics of the network over these parties, and seconds an epoch."""
    config, table = run.config, run.table(run.options.label_party)
    assert table.held_out is not None
    assert table.targets is not None
    held = table.held_out[rows[table.name]]
    seed = derive_seed(config.run.seed, "entities", table.sha256())
    order = torch.randperm(len(held), generator=torch.Generator().manual_seed(seed))
    train_at, test_at = order[~held[order]], order[held[order]]
    learners: dict[str, Learner] = {}
    for number, name in enumerate(names):
        me = Party(name, number, name == table.name, 0, 0, b"")
        learners[name] = build_learner(run, SessionMember("", b"", me, rows={"train": rows[name][train_at]}))
    head = learners[table.name].head
    assert head is not None
    parameters = [parameter for learner in learners.values() for parameter in learner.part.parameters]
    optimizer = optimizer_factory("optimizer", config.optimizer)(parameters)

    def outputs(at: Tensor) -> Tensor:
        parts = {name: learner.bottom.forward(rows[name][at]) for name, learner in learners.items() if learner.bottom}
        return head.outputs(parts)

    epochs, start = config.federation.num_rounds * config.train.local_epochs, time.perf_counter()
    for epoch in range(1, epochs + 1):
        for batch in minibatches(len(train_at), config.train.batch_size, generator(config.run.seed, "batches", epoch)):
            at = train_at[batch]
            optimizer.zero_grad(set_to_none=True)
            run.options.task.loss(outputs(at), table.targets[rows[table.name][at]]).backward()
            optimizer.step()
    seconds = (time.perf_counter() - start) / epochs
    with torch.no_grad():
        for learner in learners.values():
            learner.part.net.eval()
        scores, targets = outputs(test_at), table.targets[rows[table.name][test_at]]
    found = {name: metric(scores, targets) for name, metric in run.options.task.metrics.items()}
    if "auc" in found:
        found["auc_95"] = 1.96 * hanley_mcneil(found["auc"], int((targets == 1).sum()), int((targets == 0).sum()))
    return found, seconds


def hanley_mcneil(auc: float, positive: int, negative: int) -> float:
    """The standard error of an AUC (Hanley & McNeil 1982)."""
    one, both = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    rest = (positive - 1) * (one - auc**2) + (negative - 1) * (both - auc**2)
    return float(((auc * (1 - auc) + rest) / (positive * negative)) ** 0.5)


def main(arguments: list[str]) -> None:
    config = compose(arguments)
    torch.set_num_threads(config.run.threads_per_client)
    options = vertical_options(config)
    run = PartyRun(config, options, OwnLimits(), "", None, "", None, None, None, 0)
    rows = entities(run)
    alone = replace(run, options=replace(options, fusion=Sum(masked=False)))
    for title, which, names in (("joined", run, options.names), ("label party alone", alone, (options.label_party,))):
        found, seconds = train(which, names, rows)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in found.items())
        print(f"{title:<18} {shown}  {seconds:.1f} s an epoch", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
