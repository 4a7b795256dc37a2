"""Reading the config.yaml of a run directory, which may come from anywhere: nothing in it may run code."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fedapp.common.errors import ConfigError
from fedapp.config.committed import committed_targets
from fedapp.config.nodes import Node
from fedapp.config.options import options_of

__all__ = ["SavedConfig", "check_node", "plain_yaml", "read_saved"]

LARGEST = 1 << 24  # characters; class names and columns make a config of a few thousand
PACKAGES = {"data": "fedapp.data.", "model": "fedapp.models.", "task.kind": "fedapp.learning.tasks."}


@dataclass(frozen=True)
class SavedConfig:
    """What of a saved config the model's inference needs. `kind`: the task's. `personal`: what of the model is the
    clients' own; None where the config does not say."""

    data: Node
    model: Node
    kind: Node
    personal: Node | None


def read_saved(path: Path) -> SavedConfig:
    """The `_target_`s of `data`, `model` and `task.kind` are code of fedapp.data, fedapp.models and
    fedapp.learning.tasks that a file under conf/ names. Raises ConfigError, opening with `path`, for anything else."""
    defaults = {"task.kind": options_of("task/kind")["auto"]}  # runs of earlier versions name no kind
    try:
        config = plain_yaml(path.read_text("utf-8"))
        nodes: dict[str, Node] = {}
        for key, package in PACKAGES.items():
            node = _found(config, key) or defaults.get(key)
            if not isinstance(node, dict) or "_target_" not in node:
                raise ConfigError(f"{path}: no config of a run; {key} with its _target_ is missing")
            _refuse_code(node, f"{path}: {key}", package)
            nodes[key] = {str(name): value for name, value in node.items()}
        federation = config.get("federation")
        personal = federation.get("personal") if isinstance(federation, dict) else None
        if personal is not None:
            _refuse_code(personal, f"{path}: federation.personal", PACKAGES["model"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"{path}: no config of a run: {reason}") from None
    personal = personal if isinstance(personal, dict) else None
    return SavedConfig(nodes["data"], nodes["model"], nodes["task.kind"], personal)


def check_node(node: Node, key: str, package: str) -> None:
    """Raises ConfigError, opening with `key`, unless all code that `node` names is the `_target_` of a file under conf/
    and in `package`, such as "fedapp.models."."""
    if "_target_" not in node:
        raise ConfigError(f"{key}: names no code (_target_)")
    _refuse_code(node, key, package)


def plain_yaml(content: str) -> Any:
    """`content` as YAML without aliases, by which a few lines stand for more than any memory: a run writes none. Raises
    yaml.YAMLError."""
    if len(content) > LARGEST:
        raise yaml.YAMLError(f"more than {LARGEST} characters")
    for event in yaml.parse(content, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"an alias (*{event.anchor}), which no run writes")
    return yaml.safe_load(content)


def _found(config: Any, key: str) -> Any:
    """The value of a dotted key, or None."""
    for name in key.split("."):
        config = config.get(name) if isinstance(config, dict) else None
    return config


def _refuse_code(node: Any, key: str, package: str, *, top: bool = True) -> None:
    """A ConfigError for other code than that of `package`, for any below the node's `top`, and for what Hydra would
    look up elsewhere."""
    if isinstance(node, dict):
        for name, value in node.items():
            known = top and isinstance(value, str) and value.startswith(package)
            known = known and any(value in targets for targets in committed_targets().values())
            if re.fullmatch("_.*_", str(name)) and (name != "_target_" or not known):
                raise ConfigError(f"{key}.{name}={value}: is no code of {package}* that a file under conf/ names")
            _refuse_code(value, f"{key}.{name}", package, top=False)
    elif isinstance(node, list):
        for item in node:
            _refuse_code(item, key, package, top=False)
    elif isinstance(node, str) and "${" in node:
        raise ConfigError(f"{key}={node}: ${{...}} would be looked up elsewhere; a saved config holds values")
