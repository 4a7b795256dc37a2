"""The arms where parties hold different columns: the label party alone, all columns in one place, and federated.

There is one site, the label party, since nobody else has labels. All arms are judged on the same held-out entities of
it; with vertical.unmatched=drop only on those that every party has, which are all that a federated model can predict.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from fedapp.common.errors import ConfigError, DataError, FedappError
from fedapp.compare.arm_runs import ArmRuns, Tell, facts_of, run_to_end
from fedapp.compare.compared_arms import ComparedArm, run_overrides
from fedapp.compare.held_out_rows import Judged, Sites
from fedapp.config import Config, compose
from fedapp.data.source import Examples
from fedapp.inference.saved_parties import load_parties
from fedapp.launch.local.engine import LocalEngine
from fedapp.vertical.clear_matching import rows_by_party
from fedapp.vertical.fusion import Sum
from fedapp.vertical.pooled import OneParty, PooledTraining
from fedapp.vertical.vertical_options import VerticalOptions, vertical_options

__all__ = ["arms_by_columns", "run_arm_by_columns", "sites_by_columns"]

NO_LABEL_PRIVACY = "vertical/label_privacy=none"  # whoever has all columns hides the labels from nobody


def arms_by_columns(base: Sequence[str], extra: Sequence[tuple[str, ...]]) -> list[ComparedArm]:
    """Alone, pooled, federated, then the variants."""
    single = (*_without(base, ["vertical.label_privacy"]), NO_LABEL_PRIVACY)
    arms = [ComparedArm("alone", "alone", single), ComparedArm("pooled", "all", single)]
    arms.append(ComparedArm("federated", "federated", tuple(base)))
    for variant in extra:
        own = _without(base, [item.partition("=")[0] for item in variant])
        arms.append(ComparedArm(" ".join(variant), "federated", (*own, *variant)))
    if len({arm.name for arm in arms}) < len(arms):
        raise ConfigError(f"--with {[' '.join(one) for one in extra]}: a variant is there twice")
    return arms


def _without(base: Sequence[str], keys: Sequence[str]) -> list[str]:
    """An option that is chosen anew goes with its keys."""
    names = [(item, item.partition("=")[0].lstrip("+~").replace("/", ".")) for item in base]
    gone = [key.replace("/", ".") for key in keys]
    return [item for item, name in names if not any(name == key or name.startswith(f"{key}.") for key in gone)]


@dataclass(frozen=True)
class Entities:
    """Those that can be judged: by party its row of each, -1 for none, in the order of the label party's; and how many
    others are trained on. `examples`: the numbers of the label party's rows, and their targets."""

    rows: dict[str, Tensor]
    examples: Examples
    trained_on: int


def sites_by_columns(config: Config, options: VerticalOptions) -> tuple[Sites, float]:
    """The label party as the one site, and which share of its entities is held out. Raises DataError for none."""
    found = _held_out(config, options)
    count = len(found.examples)
    if not count:
        raise DataError("task=vertical: no entity is held out, so there is nothing to judge by; set data.test_fraction")
    digest = sha256(b"".join(found.rows[name].numpy().tobytes() for name in sorted(found.rows))).hexdigest()
    units = tuple(torch.split(torch.arange(count), 1))
    one = Judged(options.label_party, found.examples, units, "entity", found.trained_on, digest)
    return Sites(found.examples.span(0, 0), (), (one,), None), round(count / (count + found.trained_on), 4)


def _held_out(config: Config, options: VerticalOptions) -> Entities:
    tables = {name: options.source.table(name, options.label_party) for name in options.names}
    rows = rows_by_party(tables, options.label_party, config.vertical.normalise)
    if config.vertical.unmatched == "drop":
        kept = torch.stack(list(rows.values())).min(0).values >= 0
        rows = {name: found[kept] for name, found in rows.items()}
    own, labelled = tables[options.label_party], rows[options.label_party]
    assert own.held_out is not None
    assert own.targets is not None
    held = own.held_out[labelled]
    judged = labelled[held]
    examples = Examples(judged.unsqueeze(1).float(), own.targets[judged])
    return Entities({name: found[held] for name, found in rows.items()}, examples, int((~held).sum()))


def run_arm_by_columns(
    engine: LocalEngine, arm: ComparedArm, sites: Sites, seeds: Sequence[int], directory: Path, tell: Tell
) -> ArmRuns:
    """All runs of an arm; a run that fails is told of in `faults`, and the others go on."""
    found, (site,) = ArmRuns(arm), sites.judged
    for number, seed in enumerate(seeds):
        tell(f"{arm.name}, seed {seed}")
        overrides, folder = run_overrides(arm, seed, directory)
        config = compose(overrides)
        options = vertical_options(config)
        judged = _held_out(config, options)
        try:
            if arm.owner == "federated":
                outputs = _run(engine, overrides, folder, found, options, judged)
            else:
                outputs = _joined(config, folder, found, options, judged)
        except FedappError as error:
            found.note(site.name, str(error))
            continue
        found.held_out.setdefault(site.name, set()).add(judged.examples.sha256())
        found.add(site.name, number, outputs)
    return found


def _joined(config: Config, folder: Path, found: ArmRuns, options: VerticalOptions, judged: Entities) -> Tensor:
    """In this process, over all columns or the label party's own. Outputs of the entities to judge."""
    torch.set_num_threads(config.run.threads_per_client)
    which = options
    if found.arm.owner == "alone":
        which = replace(options, source=OneParty(options), fusion=Sum(masked=False))
    start = time.perf_counter()
    training = PooledTraining(config, which, which.names)
    training.train()
    steps = config.federation.num_rounds * config.train.local_epochs
    steps *= -(-len(training.targets) // config.train.batch_size)
    if more := len(training.targets) - judged.trained_on:
        note = f"also trains on {more} entities of its own that other parties lack, and federated training drops"
        found.notes += [note] if note not in found.notes else []
    facts = {"model_sha256": None, "seed": config.run.seed, "seconds": time.perf_counter() - start}
    facts |= {"bytes_up": 0, "bytes_down": 0, "epsilon_max": None, "rounds": config.federation.num_rounds}
    found.runs.append({"directory": str(folder), **facts, "steps": steps})
    return training.outputs({name: judged.rows[name] for name in which.names})


def _run(
    engine: LocalEngine,
    overrides: Sequence[str],
    folder: Path,
    found: ArmRuns,
    options: VerticalOptions,
    judged: Entities,
) -> Tensor:
    """A run over the parties. Outputs of the entities to judge, by the parts that the parties have kept."""
    ready, fault = run_to_end(engine, overrides, folder)
    if ready is None:
        raise DataError(fault)
    facts = facts_of(folder)
    found.runs.append({**facts, "steps": facts["steps"] // len(options.names)})  # they take each step together
    tables = {name: options.source.table(name, options.label_party) for name in options.names}
    return load_parties(folder).outputs(tables, judged.rows)
