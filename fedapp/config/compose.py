"""Composition of the config from `conf/` by Hydra overrides, and clear refusals.

Server and clients compose the same config from the `conf/` of their own app bundle; of what the server sends, only
override strings are read, and none that could name code (`refuse_code`).
"""

import difflib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedapp.config.schema import Config, check_ranges, check_together
from fedapp.errors import ConfigError

__all__ = ["CONF_DIR", "compose", "split_overrides", "to_yaml"]

CONF_DIR = Path(__file__).resolve().parents[2] / "conf"

ConfigStore.instance().store(name="schema", node=Config)


def split_overrides(line: str) -> list[str]:
    """The overrides of a run-config line, split as a shell would. Raises ConfigError for an open quote."""
    try:
        return shlex.split(line)
    except ValueError as error:
        raise ConfigError(f"overrides={line!r}: {error}. Separate overrides by spaces, quote as in a shell") from None


def refuse_code(overrides: Sequence[str]) -> None:
    """Refuse overrides that would choose code or read the environment: a server must not do so on a client."""
    for override in overrides:
        key, _, value = override.partition("=")
        parts = key.lstrip("+~").replace("@", ".").replace("/", ".").split(".")
        if any(word in override for word in ("_target_", "_partial_", "_args_", "_convert_", "_recursive_")):
            raise ConfigError(f"{override!r}: code is chosen in a YAML file under conf/, not by an override")
        if parts[0] == "hydra" or "${" in value:
            raise ConfigError(f"{override!r}: hydra.* and ${{...}} cannot be sent to clients; write the value itself")


def compose(overrides: Sequence[str]) -> Config:
    """The config for these overrides. Raises ConfigError naming the key, the value and what would be right."""
    refuse_code(overrides)
    if GlobalHydra.instance().is_initialized():
        return from_hydra(_compose(overrides))
    with initialize_config_dir(str(CONF_DIR), version_base="1.3", job_name="fedapp"):
        return from_hydra(_compose(overrides))


def _compose(overrides: Sequence[str]) -> DictConfig:
    try:
        return hydra_compose("config", list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error, overrides)) from None


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """Hydra's complaint without its internals and its advice to add keys, and the nearest existing keys."""
    text = str(error).partition("Config search path:")[0]
    noise = ("object_type", "To append to your config", "is not in struct")
    lines = [line for line in text.splitlines() if line.strip() and not any(word in line for word in noise)]
    cause = str(error.__cause__).splitlines()[:1] if error.__cause__ is not None else []
    lines += [line for line in cause if line not in lines]
    known = _known_keys()
    wrong = (override.partition("=")[0].lstrip("+~") for override in overrides)
    for key in (key for key in wrong if f"'{key}'" in text and key not in known):
        if near := difflib.get_close_matches(key, known, n=3):
            lines.append(f"No key {key!r}; did you mean {' or '.join(near)}?")
    return "\n".join(lines)


def _known_keys() -> list[str]:
    """The groups, and every key of the default config."""
    groups = [path.name for path in CONF_DIR.iterdir() if path.is_dir()]

    def flatten(node: dict[str, Any], prefix: str) -> Iterator[str]:
        for name, value in node.items():
            if name == "_target_":
                continue
            yield f"{prefix}{name}"
            if isinstance(value, dict):
                yield from flatten(value, f"{prefix}{name}.")

    default = cast(dict[str, Any], OmegaConf.to_container(hydra_compose("config")))
    return sorted({*groups, *flatten(default, "")})


def from_hydra(node: DictConfig) -> Config:
    """A composed config as typed, checked values."""
    _refuse_strangers(node, Config, "")
    try:
        if missing := sorted(OmegaConf.missing_keys(node)):
            raise ConfigError("\n".join(f"{key}: a value is needed; add {key}=..." for key in missing))
        config = cast(Config, OmegaConf.to_object(node))
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from None
    check_ranges(config)
    check_together(config)
    return config


def _refuse_strangers(node: DictConfig, section: type, prefix: str) -> None:
    """Hydra's `+key=value` adds keys to typed sections, where nothing would read them."""
    known = {item.name: item.type for item in fields(section)}
    for key, value in node.items():
        name = str(key)
        if name not in known:
            raise ConfigError(f"{prefix}{name}: no such key in {section.__name__}; it has {', '.join(known)}")
        if is_dataclass(kind := known[name]):
            _refuse_strangers(value, cast(type, kind), f"{prefix}{name}.")


def to_yaml(config: Config) -> str:
    """The resolved config, as saved in the run directory."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))
