"""What Hydra refuses, in fewer words than its own, with what would be right."""

import difflib
import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

import yaml
from hydra import compose as hydra_compose
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from fedapp.config.committed import committed_targets
from fedapp.config.overrides import CONF_DIR, groups

__all__ = ["explain"]

ABSENT = "is not in struct"  # how Hydra says that there is no such key


def explain(error: Exception, overrides: Sequence[str]) -> str:
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
    for key in (key for key in wrong if re.search(rf"(?<![\w.]){re.escape(key)}(?!\w)", text)):
        if ABSENT in f"{text}{error.__cause__}" and (options := _options_with(key)):
            lines.append(f"{key}: the option that is chosen has no such key; {' or '.join(options)} has it")
        elif ABSENT in f"{text}{error.__cause__}" and (target := _taken_by(key, overrides)):
            lines.append(f"{key}: {target} has it, and this option does not set it; add it by +{key}=...")
        elif key not in known and (near := difflib.get_close_matches(key, known, n=3)):
            lines.append(f"No key {key!r}; did you mean {' or '.join(near)}?")
    return "\n".join(lines)


def _options_with(key: str) -> list[str]:
    """The choices, such as privacy=dp_sgd, under which there is a key that the chosen option does not have."""
    group, _, name = key.rpartition(".")
    nodes = _options(group) if group.replace(".", "/") in groups() else {}
    return [f"{group}={option}" for option, node in nodes.items() if name in node]


def _taken_by(key: str, overrides: Sequence[str]) -> str | None:
    """The class or function that the key's node names, where it has an argument of this name that the node does not
    set, such as `nesterov` of torch.optim.SGD."""
    place, _, name = key.rpartition(".")
    others = [one for one in overrides if one.partition("=")[0].lstrip("+~") != key]
    try:
        node = OmegaConf.select(hydra_compose("config", others), place)
        target = node.get("_target_") if isinstance(node, DictConfig) else None
        if target not in set().union(*committed_targets().values()):
            return None
        taken = inspect.signature(get_object(target)).parameters.get(name)
    except Exception:  # more is wrong, or its package is not here: what is already known is said
        return None
    # What has no default is given by the app, such as the parameters of an optimizer.
    return target if taken is not None and taken.default is not taken.empty else None


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
