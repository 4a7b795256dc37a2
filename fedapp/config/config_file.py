"""A YAML file of a person's own as overrides (scripts/run.py --config my.yaml), so that nothing needs quoting."""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from fedapp.common.errors import ConfigError
from fedapp.common.override_text import override
from fedapp.config.overrides import groups
from fedapp.config.saved_config import plain_yaml
from fedapp.config.schema import Config

__all__ = ["file_overrides"]

SECTIONS = {item.name for item in fields(Config)} | {"strategy.aggregation", "strategy.server_optimizer"}


def file_overrides(path: Path) -> list[str]:
    """The settings in `path` as overrides, choices of options first.

    Keys are as in conf/config.yaml: `data: csv` chooses an option, `data.path: t.csv` or the same in a mapping sets a
    value; a list `defaults` chooses options as in conf/experiment/. Raises ConfigError, opening with the path.
    """
    try:
        text = path.expanduser().read_text("utf-8-sig")
        _refuse_repeated(yaml.compose(text, Loader=yaml.SafeLoader), path)
        content = plain_yaml(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must hold settings, such as `data: csv` and `data.path: table.csv`, one a line")
    choices = [_choice(item, path) for item in content.pop("defaults", None) or () if item != "_self_"]
    values: list[str] = []
    for key, value in _flat(content, ""):
        is_choice = isinstance(value, str) and (key.replace(".", "/") in groups() or "@" in key)
        (choices if is_choice else values).append(f"{key}={value}" if is_choice else override(key, value))
    return choices + values


def _choice(item: object, path: Path) -> str:
    """An entry of `defaults`, such as {"override /data": "csv"}."""
    if not isinstance(item, dict) or len(item) != 1:
        raise ConfigError(f"{path}: defaults: {item}: must be such as `- override /data: csv`")
    (key, value), *_ = item.items()
    return f"{str(key).removeprefix('override ').strip().removeprefix('/')}={value}"


def _flat(node: dict[Any, Any], prefix: str) -> Iterator[tuple[str, object]]:
    for name, value in node.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and (key in SECTIONS or key.replace(".", "/") in groups()):
            yield from _flat(value, f"{key}.")
        else:
            yield key, value


def _refuse_repeated(node: yaml.Node | None, path: Path) -> None:
    """YAML takes the last of two values for one key without a word."""
    if isinstance(node, yaml.MappingNode):
        names = [name.value for name, _ in node.value]
        for at, (name, value) in enumerate(node.value):
            if names.index(name.value) < at:
                raise ConfigError(
                    f"{path}: line {name.start_mark.line + 1}: {name.value!r} is there twice. To choose an option and"
                    " set its values, write `data: csv` and `data.path: ...`"
                )
            _refuse_repeated(value, path)
