"""Overrides as people type them, in the form that Hydra's grammar takes: text is quoted where it has to be.

What the grammar takes as it is stays as it is. Only the form of a value changes, never what it says, and what comes out
is judged like any other override.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from fedapp.common.override_text import Written, override

__all__ = ["as_typed", "parsed"]

KEY = re.compile(r"([+~]{0,2}[\w./@$-]+)=(.*)", re.ASCII | re.DOTALL)
QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)
NUMBER = re.compile(r"\s*([+-]?[\d._]+(e[+-]?\d+)?|true|false|null)\s*", re.IGNORECASE)
OPEN, CLOSED = "[{(", "]})"


def as_typed(overrides: Sequence[str], *, sweeps: bool = False) -> list[str]:
    """The overrides with their text quoted where the grammar needs it, and it is clear what is text.

    Text with commas is a list of values to try where there are `sweeps`; without, it is a text, unless it is numbers.
    """
    return [_as_typed(one, sweeps) for one in overrides]


def parsed(one: str) -> Override | None:
    """As the grammar reads it; None where it does not."""
    try:
        return OverridesParser.create().parse_overrides([one])[0]
    except (HydraException, RecursionError, ValueError):
        return None


@lru_cache(maxsize=256)  # the parser takes a third of a millisecond for each, and every message of a run has the same
def _as_typed(one: str, sweeps: bool) -> str:
    found = KEY.fullmatch(one)
    if found is None:
        return one
    key, text = found[1], found[2]
    as_it_is = parsed(one)
    if as_it_is is not None and not as_it_is.is_sweep_override():
        return one
    parts = list(_parts(text))
    if as_it_is is not None:
        a_text = key.startswith("data.") or "/" in text
        if sweeps or not a_text or not text or re.match(r"\w+\(", text) or all(map(NUMBER.fullmatch, parts)):
            return one
        return override(key, text)
    if sweeps and len(parts) > 1:
        return f"{key}=" + ",".join(override("", _value(part, key)).removeprefix("=") for part in parts)
    repaired = override(key, _value(text, key))
    return repaired if parsed(repaired) is not None else one


def _value(text: str, key: str) -> object:
    """What `text` says: a list, a mapping, or text; what the grammar takes by itself is left as it is written."""
    text = text.strip()
    if (quoted := QUOTED.fullmatch(text)) is not None:
        return re.sub(r"\\(['\"\\])", r"\1", next(part for part in quoted.groups() if part is not None))
    inner = text[1:-1]
    if text[:1] == "[" and text[-1:] == "]":
        return [_value(part, key) for part in _parts(inner)] if inner.strip() else []
    if text[:1] == "{" and text[-1:] == "}" and all(":" in part for part in _parts(inner)):
        return dict(_pair(part, key) for part in _parts(inner)) if inner.strip() else {}
    alone = parsed(f"key={text}")
    return Written(text) if alone is not None and not alone.is_sweep_override() else text


def _pair(text: str, key: str) -> tuple[str, object]:
    quoted = QUOTED.match(text.strip())
    if quoted is not None:
        rest = text.strip()[quoted.end() :].lstrip()
        return str(_value(quoted[0], key)), _value(rest.removeprefix(":"), key)
    # The value may hold a colon itself; a name that does is quoted.
    name, _, value = text.partition(":")
    return name.strip(), _value(value, key)


def _parts(text: str) -> Iterator[str]:
    """What stands between the commas that are neither in brackets nor in quotes."""
    depth, start, at = 0, 0, 0
    while at < len(text):
        if text[at] in "'\"" and (quoted := QUOTED.match(text, at)) is not None and _begins(text, start, at):
            at = quoted.end()
            continue
        depth += (text[at] in OPEN) - (text[at] in CLOSED)
        if text[at] == "," and depth <= 0:
            yield text[start:at]
            start = at + 1
        at += 1
    yield text[start:]


def _begins(text: str, start: int, at: int) -> bool:
    """Whether a quotation mark opens a text there, and is no apostrophe inside of one."""
    return text[start:at].strip() == "" or text[:at].rstrip()[-1:] in ":[{,"
