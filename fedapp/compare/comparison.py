"""From the overrides of a federation to a comparison: runs, figures with intervals, and what follows."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedapp.common.errors import ConfigError
from fedapp.compare.arm_runs import ArmRunner, ArmRuns, run_arm
from fedapp.compare.arms_by_columns import arms_by_columns, run_arm_by_columns, sites_by_columns
from fedapp.compare.compared_arms import (
    ComparedArm,
    arms_of,
    base_overrides,
    check_base,
    check_choices,
    rounds_alone,
    run_overrides,
)
from fedapp.compare.comparison_figures import figures_of_arms
from fedapp.compare.held_out_rows import Judged, Sites, sites_of
from fedapp.compare.verdict import verdict
from fedapp.config import Config, by_group, compose
from fedapp.launch.check import absolute_paths
from fedapp.launch.local.engine import LocalEngine
from fedapp.learning.task import Task
from fedapp.server.check_config import check_cohort, check_config, check_num_clients
from fedapp.server.vertical.vertical_run import check_parties
from fedapp.vertical.vertical_options import vertical_options

__all__ = ["Asked", "Compared", "compare", "prepare"]


@dataclass(frozen=True)
class Asked:
    """What a comparison is to be. `metric`: by which it is judged; None: the first of task.metrics."""

    overrides: tuple[str, ...]
    variants: tuple[tuple[str, ...], ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    metric: str | None = None
    draws: int = 1000


@dataclass(frozen=True)
class Compared:
    """A comparison that can begin: everything that can be known to fail has been refused."""

    asked: Asked
    config: Config
    arms: tuple[ComparedArm, ...]
    sites: Sites
    task: Task
    metric: str
    same_work: str
    held_out: float
    run_arm: ArmRunner = run_arm


def prepare(asked: Asked, directory: Path) -> Compared:
    """Raises FedappError, before anything starts, for what cannot be compared."""
    if any(item.startswith("run.seed=") for item in asked.overrides):
        raise ConfigError("run.seed: give the seeds of a comparison by --seeds, such as --seeds 0,1,2")
    if compose(asked.overrides).task.by_columns:
        return prepare_columns(asked)
    base = base_overrides(asked.overrides)
    base += absolute_paths(compose(base))
    config = compose([*base, f"run.seed={asked.seeds[0]}"])
    check_base(config)
    arms = arms_of(base, config, asked.variants)
    checked = check_config(config)
    for arm in arms:
        own = compose(run_overrides(arm, asked.seeds[0], directory)[0])
        check_base_of(arm, own, config)
        check_num_clients(own)
        check_cohort(check_config(own), range(own.federation.num_clients))
    task = checked.parts.task
    metric = chosen_metric(asked, config, task)
    sites = sites_of(config, checked.parts, checked.test)
    return Compared(asked, config, tuple(arms), sites, task, metric, _same_work(config), config.train.val_fraction)


def prepare_columns(asked: Asked) -> Compared:
    """The same where parties hold different columns of the same entities."""
    base = [*by_group(asked.overrides)]
    base += absolute_paths(compose(base))
    config = compose([*base, f"run.seed={asked.seeds[0]}"])
    check_choices(config)
    if config.vertical.predict is not None:
        raise ConfigError(f"vertical.predict={config.vertical.predict}: a comparison trains; leave it null")
    arms = arms_by_columns(base, asked.variants)
    options = vertical_options(config)
    for arm in arms:
        own = compose(run_overrides(arm, asked.seeds[0], Path())[0])
        check_choices(own)
        check_parties(own)
        if any(getattr(own, name) != getattr(config, name) for name in ("data", "partition", "task")):
            raise ConfigError(f"--with {arm.name}: changes data, partition or task, which all arms have alike")
        if (own.vertical.unmatched, own.vertical.label_party) != (
            config.vertical.unmatched,
            config.vertical.label_party,
        ):
            raise ConfigError(f"--with {arm.name}: would be judged on other entities than the federated arm")
    metric = chosen_metric(asked, config, options.task)
    sites, share = sites_by_columns(config, options)
    passes = config.federation.num_rounds * config.train.local_epochs
    work = f"every arm passes {passes} times over its training entities, in batches of {config.train.batch_size}"
    return Compared(asked, config, tuple(arms), sites, options.task, metric, work, share, run_arm_by_columns)


def chosen_metric(asked: Asked, config: Config, task: Task) -> str:
    """Raises ConfigError for one that the task does not have."""
    listed = [next(iter(item)) if isinstance(item, dict) else item for item in _list(config.task.metrics)]
    metric = asked.metric or str(next(iter(listed), task.main_metric))
    if metric not in task.metrics:
        raise ConfigError(f"--metric {metric}: the task has {', '.join(task.metrics)}; name another in task.metrics")
    return metric


def _list(metrics: object) -> list[Any]:
    return metrics if isinstance(metrics, list) else []


def check_base_of(arm: ComparedArm, own: Config, config: Config) -> None:
    """Raises ConfigError for a variant that would have other sites, rows or work than the federated arm."""
    if arm.owner != "federated":
        return
    check_base(replace(own, train=replace(own.train, val_fraction=config.train.val_fraction)))
    if own.federation.num_clients != (clients := config.federation.num_clients):
        raise ConfigError(f"--with {arm.name}: federation.num_clients is {clients} in all arms")
    for name in ("data", "partition", "task"):
        if getattr(own, name) != getattr(config, name):
            raise ConfigError(f"--with {arm.name}: changes {name}, which all arms have alike")


def compare(
    engine: LocalEngine, made: Compared, directory: Path, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Run every arm below `directory`. Returns what comparison.json holds; `tell` hears of progress."""
    found = [made.run_arm(engine, arm, made.sites, made.asked.seeds, directory, tell) for arm in made.arms]
    for run in (run for one in found for run in one.runs):
        run["directory"] = str(Path(run["directory"]).relative_to(directory))
    tell("intervals")
    result = {**_about(made), "arms": [_arm(made, one) for one in found], **figures_of_arms(made, found)}
    return {**result, "verdict": verdict(result)}


def _same_work(config: Config) -> str:
    alone, federation = rounds_alone(config), config.federation
    work = (
        f"every arm passes {alone * config.train.local_epochs} times over each site's training rows, in batches of"
        f" {config.train.batch_size}: federated in {federation.num_rounds} rounds of {config.train.local_epochs}"
    )
    work += f" epoch{'s' if config.train.local_epochs > 1 else ''}"
    return work + ("" if alone == federation.num_rounds else f", in which a site takes part {alone} times on average")


def _about(made: Compared) -> dict[str, Any]:
    return {
        "overrides": list(made.asked.overrides),
        "metric": made.metric,
        "lower_is_better": made.task.metrics[made.metric].lower_is_better,
        "seeds": list(made.asked.seeds),
        "draws": made.asked.draws,
        "same_work": made.same_work,
        "held_out": made.held_out,
        "sites": [_site(one) for one in made.sites.judged],
        "test": None if made.sites.test is None else _site(made.sites.test),
    }


def _site(one: Judged) -> dict[str, Any]:
    return {
        "name": one.name,
        "trained_on": one.trained_on,
        "held_out": len(one.examples),
        "units": len(one.units),
        "unit": one.unit,
        "rows_sha256": one.rows_sha256,
        "examples_sha256": one.examples.sha256(),
        "remarks": list(one.remarks),
    }


def _arm(made: Compared, found: ArmRuns) -> dict[str, Any]:
    seeds = len(made.asked.seeds)

    def total(*keys: str) -> float:
        return sum(float(run[key] or 0) for run in found.runs for key in keys) / seeds

    spent = [run["epsilon_max"] for run in found.runs if run["epsilon_max"] is not None]
    return {
        "name": found.arm.name,
        "owner": found.arm.owner,
        "overrides": list(found.arm.overrides),
        "bytes": total("bytes_up", "bytes_down") if found.arm.owner == "federated" else 0,
        "seconds": total("seconds"),
        "steps": total("steps"),
        "epsilon": max(spent) if spent else None,
        "runs": found.runs,
        "held_out_sha256": {name: sorted(digests) for name, digests in found.held_out.items()},
        "remarks": found.faults,
        "notes": found.notes,
    }
