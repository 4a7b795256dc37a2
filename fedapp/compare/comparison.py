"""From the overrides of a federation to a comparison: runs, figures with intervals, and what follows."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fedapp.common.errors import ConfigError
from fedapp.common.seeding import derive_seed
from fedapp.compare.arm_runs import ArmRuns, run_arm
from fedapp.compare.bootstrap import Drawn, holm, interval, p_value, resamples
from fedapp.compare.compared_arms import ComparedArm, arms_of, base_overrides, check_base, rounds_alone, run_overrides
from fedapp.compare.held_out_rows import Judged, Sites, sites_of
from fedapp.compare.verdict import verdict
from fedapp.config import Config, compose
from fedapp.launch.check import absolute_paths
from fedapp.launch.local.engine import LocalEngine
from fedapp.learning.task import Task
from fedapp.server.check_config import check_cohort, check_config, check_num_clients

__all__ = ["Asked", "Compared", "compare", "prepare"]

BASELINE = "alone"  # whom gains are over


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


def prepare(asked: Asked, directory: Path) -> Compared:
    """Raises FedappError, before anything starts, for what cannot be compared."""
    if any(item.startswith("run.seed=") for item in asked.overrides):
        raise ConfigError("run.seed: give the seeds of a comparison by --seeds, such as --seeds 0,1,2")
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
    metrics = checked.parts.task.metrics
    listed = [next(iter(item)) if isinstance(item, dict) else item for item in _list(config.task.metrics)]
    metric = asked.metric or str(next(iter(listed), checked.parts.task.main_metric))
    if metric not in metrics:
        raise ConfigError(f"--metric {metric}: the task has {', '.join(metrics)}; name another in task.metrics")
    sites = sites_of(config, checked.parts, checked.test)
    return Compared(asked, config, tuple(arms), sites, checked.parts.task, metric)


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
    found = [run_arm(engine, arm, made.sites, made.asked.seeds, directory, tell) for arm in made.arms]
    for run in (run for one in found for run in one.runs):
        run["directory"] = str(Path(run["directory"]).relative_to(directory))
    tell("intervals")
    result = {**_about(made), "arms": [_arm(made, one) for one in found], **_figures(made, found)}
    return {**result, "verdict": verdict(result)}


def _about(made: Compared) -> dict[str, Any]:
    config, metric = made.config, made.task.metrics[made.metric]
    federation = config.federation
    alone = rounds_alone(config)
    work = (
        f"every arm passes {alone * config.train.local_epochs} times over each site's training rows, in batches of"
        f" {config.train.batch_size}: federated in {federation.num_rounds} rounds of {config.train.local_epochs}"
    )
    work += f" epoch{'s' if config.train.local_epochs > 1 else ''}"
    work += "" if alone == federation.num_rounds else f", in which a site takes part {alone} times on average"
    return {
        "overrides": list(made.asked.overrides),
        "metric": made.metric,
        "lower_is_better": metric.lower_is_better,
        "seeds": list(made.asked.seeds),
        "draws": made.asked.draws,
        "same_work": work,
        "held_out": config.train.val_fraction,
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


def _figures(made: Compared, found: Sequence[ArmRuns]) -> dict[str, Any]:
    """By arm and site the metric, by arm its mean and worst over sites, and gains over being alone and over pooled."""
    judged = [*made.sites.judged, *([made.sites.test] if made.sites.test is not None else [])]
    by_arm: dict[str, dict[str, Drawn]] = {one.arm.name: {} for one in found}
    table: dict[str, dict[str, Any]] = {one.arm.name: {} for one in found}
    for number, one in enumerate(judged):
        seed = derive_seed(made.asked.seeds[0], "bootstrap", number)
        counts = resamples(one.units, made.asked.draws, seed)
        for arm in found:
            figure = _draw(made, arm, one, counts)
            if figure is not None:
                by_arm[arm.arm.name][one.name] = figure
            table[arm.arm.name][one.name] = _cell(made, arm, one, figure)
    names = [one.name for one in made.sites.judged]
    return {
        "figures": table,
        "summary": {arm: _summary(made, figures, names) for arm, figures in by_arm.items()},
        "gains": _gains(made, by_arm, names, BASELINE),
        "to_pooled": _gains(made, by_arm, names, "pooled"),
    }


def _draw(made: Compared, arm: ArmRuns, one: Judged, counts: Tensor) -> Drawn | None:
    """The mean over seeds, and over the models that are judged on these rows."""
    models = [output for by_seed in arm.outputs.get(one.name, []) for output in by_seed]
    if not models or not len(one.examples):
        return None
    metric, targets = made.task.metrics[made.metric], one.examples.targets
    draws = [metric.on_draws(output, targets, counts).numpy() for output in models]
    return Drawn(math.fsum(metric(output, targets) for output in models) / len(models), np.mean(draws, axis=0))


def _cell(made: Compared, arm: ArmRuns, one: Judged, figure: Drawn | None) -> dict[str, Any]:
    said = list(arm.faults.get(one.name, []))
    if figure is None:
        said = said or [*one.remarks] or ["no model to judge"]
        return {"value": None, "low": None, "high": None, "seeds": [], "others": {}, "said": said}
    if math.isnan(figure.value):
        said.append(f"{made.metric} is not defined: {made.task.undefined(made.metric, one.examples.targets)}")
    by_seed = [_mean_of(made.task, made.metric, outputs, one) for outputs in arm.outputs[one.name] if outputs]
    every = [output for outputs in arm.outputs[one.name] for output in outputs]
    others = {name: _mean_of(made.task, name, every, one) for name in made.task.metrics}
    found = interval(figure)
    if not math.isnan(figure.value) and found.undefined:
        share = f"{found.undefined:.0%}" if found.undefined >= 0.005 else "fewer than 1%"
        said.append(f"{made.metric} is not defined on {share} of the draws")
    return {
        **_as_json(figure),
        "seeds": [_known(value) for value in by_seed],
        "others": _all_known(others),
        "said": said,
    }


def _mean_of(task: Task, name: str, outputs: Sequence[Tensor], one: Judged) -> float:
    return math.fsum(task.metrics[name](output, one.examples.targets) for output in outputs) / len(outputs)


def _summary(made: Compared, figures: dict[str, Drawn], names: Sequence[str]) -> dict[str, Any]:
    """Over the sites on which the metric is defined, each counting alike."""
    known = {name: figures[name] for name in names if name in figures and not math.isnan(figures[name].value)}
    if not known:
        return {"mean": None, "worst": None, "variance": None, "sites": 0}
    lower = made.task.metrics[made.metric].lower_is_better
    worst = (max if lower else min)(known, key=lambda name: known[name].value)
    values = [figure.value for figure in known.values()]
    mean = _mean(list(known.values()))
    return {
        "mean": _as_json(mean),
        "worst": {"site": worst, **_as_json(known[worst])},
        "variance": math.fsum((value - mean.value) ** 2 for value in values) / len(values),
        "sites": len(known),
    }


def _gains(
    made: Compared, by_arm: dict[str, dict[str, Drawn]], names: Sequence[str], over: str
) -> dict[str, dict[str, Any]]:
    """By arm and site, by how much it is better than arm `over`, on the same draws; and the mean over sites."""
    found = {}
    sign = -1.0 if made.task.metrics[made.metric].lower_is_better else 1.0
    for arm, figures in by_arm.items():
        both = [name for name in names if name in figures and name in by_arm[over]]
        gains = {name: _times(figures[name].minus(by_arm[over][name]), sign) for name in both}
        gains = {name: gain for name, gain in gains.items() if not math.isnan(gain.value)}
        if arm == over or not gains:
            continue
        corrected = holm([p_value(gain) for gain in gains.values()])
        rows = {
            name: {**_as_json(gain), "p_holm": _known(p)}
            for (name, gain), p in zip(gains.items(), corrected, strict=True)
        }
        found[arm] = {"sites": rows, "mean": _as_json(_mean(list(gains.values())))}
    return found


def _mean(figures: Sequence[Drawn]) -> Drawn:
    """Of sites, which are drawn independently; draws on which one is not defined are left out."""
    draws = np.mean([figure.draws for figure in figures], axis=0)
    return Drawn(math.fsum(figure.value for figure in figures) / len(figures), draws)


def _times(figure: Drawn, sign: float) -> Drawn:
    return Drawn(sign * figure.value, sign * figure.draws)


def _as_json(figure: Drawn) -> dict[str, Any]:
    found = interval(figure)
    return {"value": _known(found.value), "low": _known(found.low), "high": _known(found.high)}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def _all_known(values: dict[str, float]) -> dict[str, float | None]:
    return {name: _known(value) for name, value in values.items()}
