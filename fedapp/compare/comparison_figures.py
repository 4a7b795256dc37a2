"""What a comparison found: by arm and site the metric with its interval, and gains over being alone and over pooled."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from fedapp.common.seeding import derive_seed
from fedapp.compare.arm_runs import ArmRuns
from fedapp.compare.bootstrap import Drawn, holm, interval, p_value, resamples
from fedapp.compare.held_out_rows import Judged
from fedapp.learning.task import Task

if TYPE_CHECKING:
    from fedapp.compare.comparison import Compared

__all__ = ["figures_of_arms"]

BASELINE = "alone"  # whom gains are over


def figures_of_arms(made: "Compared", found: Sequence[ArmRuns]) -> dict[str, Any]:
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


def _draw(made: "Compared", arm: ArmRuns, one: Judged, counts: Tensor) -> Drawn | None:
    """The mean over seeds, and over the models that are judged on these rows."""
    models = [output for by_seed in arm.outputs.get(one.name, []) for output in by_seed]
    if not models or not len(one.examples):
        return None
    metric, targets = made.task.metrics[made.metric], one.examples.targets
    draws = [metric.on_draws(output, targets, counts).numpy() for output in models]
    return Drawn(math.fsum(metric(output, targets) for output in models) / len(models), np.mean(draws, axis=0))


def _cell(made: "Compared", arm: ArmRuns, one: Judged, figure: Drawn | None) -> dict[str, Any]:
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


def _summary(made: "Compared", figures: dict[str, Drawn], names: Sequence[str]) -> dict[str, Any]:
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
    made: "Compared", by_arm: dict[str, dict[str, Drawn]], names: Sequence[str], over: str
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
