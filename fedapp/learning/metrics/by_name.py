"""Metrics by the names that `task.metrics` gives."""

from collections.abc import Mapping
from functools import lru_cache

from fedapp.common.errors import ConfigError
from fedapp.config import instantiate, options_of
from fedapp.learning.metrics.metric import Metric

__all__ = ["choose"]

GROUP = "metric"


def choose(names: object, kind: str, standard: Mapping[str, Metric]) -> dict[str, Metric]:
    """The `standard` metrics of a task's kind, then those that `task.metrics` names.

    `names`: "auto" for no others. Raises ConfigError for names that are unknown or serve another kind.
    """
    chosen = [] if names == "auto" else names
    known = options_of(GROUP)
    if isinstance(chosen, list) and all(isinstance(name, str) and name in known for name in chosen):
        found = {name: _named(name) for name in chosen}
        if all(metric.serves == kind for metric in found.values()):
            return {**standard, **found}
    serving = sorted(name for name in known if _named(name).serves == kind)
    raise ConfigError(f"task.metrics={names}: must be auto or a list out of {', '.join(serving)} ({kind})")


@lru_cache
def _named(name: str) -> Metric:
    """Raises ConfigError where the file names something else than a metric."""
    node = options_of(GROUP)[name]
    made = instantiate(f"metric.{name}", node, name=name)
    if not isinstance(made, Metric):
        raise ConfigError(f"metric.{name}._target_={node['_target_']}: is not a fedapp.learning.metrics.Metric")
    return made
