"""The code that files under conf/ name, and where: a config may choose no other."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import yaml

from fedapp.config.overrides import CONF_DIR

__all__ = ["choice_of", "committed_targets"]


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
