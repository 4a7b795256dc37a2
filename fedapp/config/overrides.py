"""Override strings: how a run is described, on the wire too, where whoever sends them may be hostile.

A server may choose among the settings and options that this app's own `conf/` has. It may not name code, files, the
environment, or anything outside of `conf/`: Hydra itself loads whatever file a choice such as `data=../../x` leads to.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from fedapp.common.errors import ConfigError
from fedapp.common.override_text import decoded_key, pasted

__all__ = ["CONF_DIR", "NO_CODE", "by_group", "check_overrides", "groups", "split_overrides"]

CONF_DIR = Path(__file__).resolve().parents[2] / "conf"
DOTTED_CHOICE = re.compile(r"([a-z_]+(?:\.[a-z_]+)+)=(\w+(?:,\w+)*)")
NO_CODE = "code is chosen in a YAML file under conf/, not by an override"
PACKAGE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def split_overrides(line: str) -> list[str]:
    """The overrides of a run-config line, split as a shell would. Raises ConfigError for an open quote."""
    try:
        return shlex.split(line)
    except ValueError as error:
        raise ConfigError(f"overrides={line!r}: {error}. Separate overrides by spaces, quote as in a shell") from None


@lru_cache(maxsize=1)
def groups() -> Mapping[str, tuple[str, ...]]:
    """By group, such as `data` or `federation/personal`, the options that really lie in its folder."""
    folders = sorted(path for path in CONF_DIR.rglob("*") if path.is_dir() and path.name != "__pycache__")
    found = {
        folder.relative_to(CONF_DIR).as_posix(): tuple(sorted(file.stem for file in folder.glob("*.yaml")))
        for folder in folders
    }
    return MappingProxyType(found)


def by_group(overrides: Sequence[str]) -> list[str]:
    """Overrides such as `federation.personal=head`, where conf/federation/personal/ is a folder of options, as Hydra
    writes them: `federation/personal=head`. All others as they are."""
    return [
        f"{group}={found[2]}"
        if (found := DOTTED_CHOICE.fullmatch(override)) and (group := found[1].replace(".", "/")) in groups()
        else override
        for override in overrides
    ]


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse overrides that would choose code or files, or read the environment: a server must not do so on a client.

    They are judged as Hydra's parser reads them: in the raw text, escapes can hide what a value becomes. Raises
    ConfigError, which names nothing but the override and what conf/ has.
    """
    try:
        found = OverridesParser.create().parse_overrides(list(overrides))
    except (HydraException, RecursionError) as error:
        text = " ".join(str(error).splitlines()[:2])
        raise ConfigError(
            f"overrides {list(overrides)}: {text}. Quote special characters: key='value'; or write the settings into a"
            " YAML file for scripts/run.py --config"
        ) from None
    for one in found:
        _refuse_code(one)
        if one.is_sweep_override():
            key, _, value = (one.input_line or "").partition("=")
            raise ConfigError(
                f"{one.input_line!r}: is a sweep; scripts/run.py -m runs it, one value at a time. If it is text, paste"
                f" {pasted(key, value)}"
            )
        _check_choice(one)


def _refuse_code(override: Override) -> None:
    line = override.input_line or ""
    key = f"{override.key_or_group}.{override.package or ''}"
    if any(part.startswith("_") and part != "_global_" for part in re.split(r"[./@]", key)):
        raise ConfigError(f"{line!r}: {NO_CODE}")
    if re.match(r"hydra\b", key):
        raise ConfigError(f"{line!r}: hydra.* settings cannot be sent to clients")
    if override.is_sweep_override():
        return
    for name in _keys(override.value()):
        if str(decoded_key(name)).startswith("_"):
            raise ConfigError(f"{line!r}: {NO_CODE}")
    for value in _leaves(override.value()):
        if isinstance(value, str) and "${" in value:
            raise ConfigError(f"{line!r}: ${{...}} cannot be sent to clients; write the value itself")


def _check_choice(override: Override) -> None:
    """Options are those that lie in a group's folder. What is no group has a dotted key, and no slash or package."""
    line, key, value = override.input_line or "", override.key_or_group, override.value()
    options = groups().get(key)
    if options is None:
        if "/" in key or override.package is not None:
            raise ConfigError(f"{line!r}: there is no group {key}; conf/ has {', '.join(groups())}")
        return
    if override.package is not None and not PACKAGE.fullmatch(override.package):
        raise ConfigError(f"{line!r}: {override.package!r} is no place in the config")
    chosen = value if isinstance(value, list) else [value]
    for option in chosen:
        named = str(option) if isinstance(option, str) or type(option).__name__ == "QuotedString" else option
        if named is not None and named not in options:
            remedy = f"it has {', '.join(options)}" if options else f"set its keys one by one, as {key}.KEY=..."
            raise ConfigError(f"{line!r}: {key} has no option {named!r}; {remedy}")


def _leaves(value: object) -> Iterator[object]:
    """Every key and every value inside `value`."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _keys(value: object) -> Iterator[object]:
    """The keys of every mapping inside `value`."""
    if isinstance(value, dict):
        yield from value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from _keys(item)
