"""Composition of the config from `conf/` by Hydra overrides, and clear refusals.

Server and clients compose the same config from the `conf/` of their own app bundle. Of what the server sends, only
override strings are read, and none that could name code or files (`overrides.py`).
"""

import copy
import difflib
import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

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
from fedapp.config.overrides import CONF_DIR, NO_CODE, by_group, check_overrides, groups
from fedapp.config.schema import Config, check_ranges
from fedapp.config.typed_text import as_typed

__all__ = ["choice_of", "committed_targets", "compose", "config_sha256", "to_yaml"]

ConfigStore.instance().store(name="schema", node=Config)


@lru_cache(maxsize=1)
def committed_targets() -> Mapping[str, frozenset[str]]:
    """The only code that a config may choose: the `_target_`s in files under conf/, by the place of the node that they
    are given to, such as `strategy.aggregation`. A group's own place is its folder's."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in CONF_DIR.rglob("*.yaml"):
        for place, target in _targets(path):
            found[place].add(target)
    return MappingProxyType({place: frozenset(targets) for place, targets in found.items()})


def _targets(path: Path) -> Iterator[tuple[str, str]]:
    """Of a file under conf/, the place and the code of each `_target_`."""
    text = path.read_text("utf-8")
    if "_target_" not in text:
        return iter(())
    folder = path.parent.relative_to(CONF_DIR).as_posix().strip(".").replace("/", ".")
    package = re.search(r"^# @package (\S+)", text, re.MULTILINE)
    start = folder if package is None or package[1] == "_group_" else package[1].removeprefix("_global_")

    def walk(node: object, at: str) -> Iterator[tuple[str, str]]:
        for name, value in node.items() if isinstance(node, dict) else ():
            if name == "_target_":
                yield at, str(value)
            else:
                yield from walk(value, f"{at}.{name}".lstrip("."))

    return walk(yaml.safe_load(text), start)


def choice_of(group: str, target: str) -> str:
    """The choice that brings this code, as a person writes it: privacy=dp_sgd. Of several, the shortest."""
    files = sorted((CONF_DIR / group).glob("*.yaml"), key=lambda path: (len(path.stem), path.stem))
    names = [path.stem for path in files if (group.replace("/", "."), target) in _targets(path)]
    return f"{group}={names[0] if names else target}"


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
        raise ConfigError(_explain(error, overrides)) from None


ABSENT = "is not in struct"  # how Hydra says that there is no such key


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """Hydra's complaint without its internals and its advice to add keys, and the nearest existing keys."""
    text = str(error).partition("Config search path:")[0]
    noise = ("object_type", "To append to your config", ABSENT)
    lines = [line for line in text.splitlines() if line.strip() and not any(word in line for word in noise)]
    cause = str(error.__cause__).splitlines()[:1] if error.__cause__ is not None else []
    lines += [line for line in cause if line not in lines and ABSENT not in line]
    if not any(override.partition("=")[0] in text for override in overrides):
        lines.insert(0, f"overrides {' '.join(overrides)}:")
    known = _known_keys()
    wrong = (override.partition("=")[0].lstrip("+~") for override in overrides)
    for key in (key for key in wrong if key.rpartition(".")[2] in text):
        if ABSENT in f"{text}{error.__cause__}" and (options := _options_with(key)):
            lines.append(f"{key}: the option that is chosen has no such key; {' or '.join(options)} has it")
        elif key not in known and (near := difflib.get_close_matches(key, known, n=3)):
            lines.append(f"No key {key!r}; did you mean {' or '.join(near)}?")
    return "\n".join(lines)


def _options_with(key: str) -> list[str]:
    """The choices, such as privacy=dp_sgd, under which there is a key that the chosen option does not have."""
    group, _, name = key.rpartition(".")
    nodes = _options(group) if group.replace(".", "/") in groups() else {}
    return [f"{group}={option}" for option, node in nodes.items() if name in node]


def _options(group: str) -> dict[str, dict[str, Any]]:
    """By option of a group, its keys besides `_target_`; of options without one, none."""
    found = {}
    for file in sorted((CONF_DIR / group.replace(".", "/")).glob("*.yaml")):
        content = yaml.safe_load(file.read_text("utf-8"))
        node = content.get(group, content) if isinstance(content, dict) else {}
        if isinstance(node, dict) and "_target_" in node:
            found[file.stem] = {name: value for name, value in node.items() if name != "_target_"}
    return found


def _known_keys() -> list[str]:
    """The groups, and every key of the default config."""
    names = [group.replace("/", ".") for group in groups()]

    def flatten(node: dict[str, Any], prefix: str) -> Iterator[str]:
        for name, value in node.items():
            if name == "_target_":
                continue
            yield f"{prefix}{name}"
            if isinstance(value, dict):
                yield from flatten(value, f"{prefix}{name}.")

    default = cast(dict[str, Any], OmegaConf.to_container(hydra_compose("config")))
    of_options = {f"{group}.{name}" for group in names for node in _options(group).values() for name in node}
    return sorted({*names, *flatten(default, ""), *of_options})


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
