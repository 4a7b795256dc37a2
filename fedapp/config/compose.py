"""Composition of the config from `conf/` by Hydra overrides, and clear refusals.

Server and clients compose the same config from the `conf/` of their own app bundle. Of what the server sends, only
override strings are read, and none that could name code or files (`overrides.py`).
"""

import copy
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import lru_cache
from typing import cast

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from fedapp.common.errors import ConfigError
from fedapp.common.override_text import decoded_keys
from fedapp.config.committed import committed_targets
from fedapp.config.explain import explain
from fedapp.config.overrides import CONF_DIR, NO_CODE, by_group, check_overrides
from fedapp.config.schema import Config, check_ranges
from fedapp.config.typed_text import as_typed

__all__ = ["compose", "config_sha256", "to_yaml"]

ConfigStore.instance().store(name="schema", node=Config)


def _check_node(node: object, key: str, group: str = "") -> None:
    """Refuse code that no file under conf/ gives this place, `key` (or its `group`), and numbers that are not finite,
    however they got into the config. Code is at the top of a node only: Hydra would make what is deeper, too."""
    if not isinstance(node, dict) or "_target_" not in node:
        how = f"; choose one by {group}@{key}={node}" if group and isinstance(node, str) else ""
        raise ConfigError(f"{key}={node}: must be a node with a _target_, like those in conf/{group or key}/{how}")
    known = committed_targets()
    if not any(node["_target_"] in known.get(place, ()) for place in (key, group)):
        raise ConfigError(f"{key}._target_={node['_target_']}: {NO_CODE}")
    _check_inside({name: value for name, value in node.items() if name != "_target_"}, key)


def _check_inside(node: object, key: str) -> None:
    if isinstance(node, dict):
        for name, value in node.items():
            if str(name).startswith("_"):
                raise ConfigError(f"{key}.{name}={value}: {NO_CODE}")
            _check_inside(value, f"{key}.{name}")
    elif isinstance(node, list):
        for item in node:
            _check_inside(item, key)
    elif isinstance(node, float) and not math.isfinite(node):
        raise ConfigError(f"{key}={node}: must be a finite number")


def compose(overrides: Sequence[str]) -> Config:
    """The config for these overrides. Raises ConfigError naming the key, the value and what would be right."""
    return copy.deepcopy(_composed(tuple(by_group(as_typed(overrides)))))


@lru_cache(maxsize=8)
def _composed(overrides: tuple[str, ...]) -> Config:
    """Once for each process: it takes an eighth of a second, and files under conf/ do not change while one runs."""
    check_overrides(overrides)
    if GlobalHydra.instance().is_initialized():
        return from_hydra(_compose(overrides))
    with initialize_config_dir(str(CONF_DIR), version_base="1.3", job_name="fedapp"):
        return from_hydra(_compose(overrides))


def _compose(overrides: Sequence[str]) -> DictConfig:
    try:
        return hydra_compose("config", list(overrides))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(explain(error, overrides)) from None


def from_hydra(node: DictConfig) -> Config:
    """A composed config as typed, checked values."""
    try:
        _refuse_strangers(node, Config, "")
        config = _with_decoded_keys(cast(Config, OmegaConf.to_object(node)))
    except MissingMandatoryValue:
        missing = sorted(OmegaConf.missing_keys(node))  # as long as all else here
        raise ConfigError("\n".join(f"{key}: a value is needed; add {key}=..." for key in missing)) from None
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from None
    for name in ("data", "model", "partition", "optimizer", "privacy", "secure_aggregation", "compression"):
        _check_node(getattr(config, name), name)
    for name in ("cohort", "downlink", "rounds", "tracker"):
        _check_node(getattr(config, name), name)
    for name in ("personal", "client_speed"):
        _check_node(getattr(config.federation, name), f"federation.{name}")
    for name in ("fusion", "label_privacy"):
        _check_node(getattr(config.vertical, name), f"vertical.{name}")
    for name in ("client_lr", "server_lr"):
        _check_node(getattr(config, name), name, "lr_schedule")
    for name in ("kind", "loss"):
        _check_node(getattr(config.task, name), f"task.{name}")
    for name in ("aggregation", "server_optimizer", *(["fairness"] if config.strategy.fairness is not None else [])):
        _check_node(getattr(config.strategy, name), f"strategy.{name}")
    check_ranges(config)
    return config


def _with_decoded_keys(config: Config) -> Config:
    """Nodes and what is in them; the names of sections are ASCII."""
    for item in fields(Config):
        if isinstance(value := getattr(config, item.name), dict):
            setattr(config, item.name, decoded_keys(value))
    return config


def _refuse_strangers(node: DictConfig, section: type, prefix: str) -> None:
    """Hydra's `+key=value` adds keys to typed sections, where nothing would read them."""
    known = {item.name: item.type for item in fields(section)}
    for key, value in node.items():
        name = str(key)
        if name not in known:
            raise ConfigError(f"{prefix}{name}: no such key in {section.__name__}; it has {', '.join(known)}")
        if is_dataclass(kind := known[name]):
            if not isinstance(value, DictConfig):
                raise ConfigError(f"{prefix}{name}={value}: is a section and needs its keys")
            _refuse_strangers(value, cast(type, kind), f"{prefix}{name}.")


def config_sha256(config: Config) -> str:
    """One number that tells whether two resolved configs are the same."""
    return hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode()).hexdigest()


def to_yaml(config: Config) -> str:
    """The resolved config, as saved in the run directory. By PyYAML: a category such as "${x" is text, and no
    interpolation."""
    return yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True)
