"""Which class or category a cell is: by its text, or else by its value, but never by its place in a list."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedapp.data.tables.text import look, value_of

if TYPE_CHECKING:
    from fedapp.data.tables.sheet import Column

__all__ = ["Blanks", "Matcher"]


class Matcher:
    """Finds the index of a text among `values`: the same text; else the same number, such as 1.0 for 1; else, with
    `ignore_case`, a text that looks the same. What would fit several of them fits none."""

    def __init__(self, values: Sequence[str], ignore_case: bool = False) -> None:
        self._texts = {text: index for index, text in enumerate(values)}
        self._numbers = _unique({index: value_of(text) for index, text in enumerate(values)})
        self._looks = _unique({index: look(text) for index, text in enumerate(values)}) if ignore_case else {}

    def index(self, text: str) -> int:
        """-1: not among them."""
        if (found := self._texts.get(text)) is not None:
            return found
        if (number := value_of(text)) is not None:
            return self._numbers.get(number, -1)
        return self._looks.get(look(text), -1) if self._looks else -1

    def codes(self, column: "Column") -> NDArray[np.int64]:
        """By row of `column`, the index of its cell."""
        return np.array([self.index(text) for text in column.texts], dtype=np.int64)[column.codes]


@dataclass(frozen=True)
class Blanks:
    """The texts that count as a missing value; a number among them, such as -999, does so however it is spelt."""

    texts: tuple[str, ...]

    @cached_property
    def _numbers(self) -> frozenset[float]:
        return frozenset(value for text in self.texts if (value := value_of(text)) is not None)

    def among(self, texts: Iterable[str]) -> set[str]:
        """Those of `texts` that count as missing."""
        found = set(self.texts).intersection(texts)
        return found | {text for text in texts if value_of(text) in self._numbers} if self._numbers else found

    def without(self, values: Sequence[str]) -> "Blanks":
        return Blanks(tuple(text for text in self.texts if text not in values))


def _unique(keys: Mapping[int, object]) -> dict[object, int]:
    """By key, the one index that has it; keys that several have, and None, are left out."""
    counts = Counter(keys.values())
    return {key: index for index, key in keys.items() if key is not None and counts[key] == 1}
