"""Options of a group of conf/ that are looked up by name rather than composed: metrics, and kinds of task."""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

import yaml

from fedapp.common.errors import ConfigError
from fedapp.config.nodes import Node
from fedapp.config.overrides import CONF_DIR

__all__ = ["options_of"]


@lru_cache
def options_of(group: str) -> Mapping[str, Node]:
    """By name, the node in each YAML file of conf/<group>/. Raises ConfigError for a file without a `_target_`.

    The folder is listed: a name that a config gives is looked up here, and never becomes a path.
    """
    found: dict[str, Node] = {}
    for path in sorted((CONF_DIR / group).glob("*.yaml")):
        node = yaml.safe_load(path.read_text("utf-8"))
        if not isinstance(node, dict) or "_target_" not in node:
            raise ConfigError(f"{path}: must name its code as _target_")
        found[path.stem] = node
    return MappingProxyType(found)
