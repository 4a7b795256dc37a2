"""Metrics by the names that `task.metrics` gives."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from fedapp.common.errors import ConfigError
from fedapp.config import option, options_of
from fedapp.data.source import Schema
from fedapp.learning.metrics.metric import Metric

__all__ = ["choose"]

GROUP = "metric"


def choose(names: object, kind: str, standard: Mapping[str, Metric], schema: Schema) -> dict[str, Metric]:
    """The `standard` metrics of a task's kind, then those that `task.metrics` names.

    `names`: "auto" for no others, or a list of names; a name with settings of its own is a mapping such as
    `{top_k: {k: 3}}`. Raises ConfigError for names that are unknown, serve another kind or do not fit the `schema`.
    """
    wanted = [] if names == "auto" else names
    if not isinstance(wanted, list):
        raise _refused(names, kind)
    found: dict[str, Metric] = {}
    for item in wanted:
        settings = item if isinstance(item, dict) else {str(item): {}}
        if not all(isinstance(name, str) and name in options_of(GROUP) for name in settings):
            raise _refused(names, kind)
        for name, own in settings.items():
            metric = _named(name, json.dumps(own or {}, sort_keys=True))
            if metric.serves != kind:
                raise _refused(names, kind)
            found[name] = metric.of(schema)
    return {**standard, **found}


def _refused(names: object, kind: str) -> ConfigError:
    serving = sorted(name for name in options_of(GROUP) if _named(name).serves == kind)
    return ConfigError(f"task.metrics={names}: must be auto or a list out of {', '.join(serving)} ({kind})")


@lru_cache
def _named(name: str, settings: str = "{}") -> Metric:
    """With `settings`, as JSON, in place of the file's. Raises ConfigError where the file names something else than a
    metric, and for settings that it does not have."""
    node, own = options_of(GROUP)[name], json.loads(settings)
    known = sorted(key for key in node if key != "_target_")
    for key in own if isinstance(own, Mapping) else [own]:
        if key not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise ConfigError(f"task.metrics: {name} has no setting {key!r}; {has}")
    values: dict[str, Any] = {**node, **own}
    return option(f"metric.{name}", values, Metric, name=name)
