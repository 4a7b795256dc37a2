"""Reading the config.yaml of a run directory, which may come from anywhere: nothing in it may run code."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fedapp.common.errors import ConfigError
from fedapp.config.compose import committed_targets
from fedapp.config.nodes import Node

__all__ = ["SavedConfig", "read_saved"]

PACKAGES = {"data": "fedapp.data.", "model": "fedapp.models."}


@dataclass(frozen=True)
class SavedConfig:
    """What of a saved config the model's inference needs. `personal`: what of the model is the clients' own; None where
    the config does not say."""

    data: Node
    model: Node
    personal: Node | None


def read_saved(path: Path) -> SavedConfig:
    """The `_target_`s of `data` and `model` are code of fedapp.data and fedapp.models that a file under conf/ names.
    Raises ConfigError, opening with `path`, for anything else."""
    try:
        config = yaml.safe_load(path.read_text("utf-8"))
        nodes: dict[str, Node] = {}
        for key, package in PACKAGES.items():
            node = config.get(key) if isinstance(config, dict) else None
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
    return SavedConfig(nodes["data"], nodes["model"], personal if isinstance(personal, dict) else None)


def _refuse_code(node: Any, key: str, package: str) -> None:
    """A ConfigError for other code than that of `package`, and for what Hydra would look up elsewhere."""
    if isinstance(node, dict):
        for name, value in node.items():
            known = isinstance(value, str) and value.startswith(package) and value in committed_targets()
            if re.fullmatch("_.*_", str(name)) and (name != "_target_" or not known):
                raise ConfigError(f"{key}.{name}={value}: is no code of {package}* that a file under conf/ names")
            _refuse_code(value, f"{key}.{name}", package)
    elif isinstance(node, list):
        for item in node:
            _refuse_code(item, key, package)
    elif isinstance(node, str) and "${" in node:
        raise ConfigError(f"{key}={node}: ${{...}} would be looked up elsewhere; a saved config holds values")
