"""Text as people and programs leave it in cells: invisible spaces, letters in several forms, what looks alike."""

import math
import re
import unicodedata
from collections.abc import Iterable

__all__ = ["alike", "clean", "look", "value_of"]

INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060\u200e\u200f\u00ad\x00"
SPACES = INVISIBLE + "".join(chr(code) for code in range(0x3001) if chr(code).isspace())
SEPARATORS = re.compile(r"[\s_-]+")


def clean(text: str) -> str:
    """Without spaces of any kind around it, and in Unicode's composed form, so that equal text is equal."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return text.strip(SPACES)


def look(text: str) -> str:
    """The same for texts that a person takes for the same: without case, width, and kinds of separators."""
    return SEPARATORS.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip(" .")


def alike(texts: Iterable[str]) -> list[list[str]]:
    """The groups of two or more of `texts` that look alike, or are the same number."""
    groups: dict[object, list[str]] = {}
    for text in texts:
        groups.setdefault(value_of(text) if value_of(text) is not None else look(text), []).append(text)
    return [group for group in groups.values() if len(group) > 1]


def value_of(text: str) -> float | None:
    """The number that `text` is, if it is a finite one."""
    try:
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
