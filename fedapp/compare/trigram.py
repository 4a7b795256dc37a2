"""A model of three words: what a keyboard did before networks.

Interpolated Kneser-Ney smoothing with one discount an order (Kneser and Ney 1995; Chen and Goodman, "An Empirical Study
of Smoothing Techniques for Language Modeling", 1999, section 3).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedapp.data.source import Examples
from fedapp.data.text.vocabulary import Vocabulary

__all__ = ["CUT", "Trigram"]

Chances = NDArray[np.float64]  # (tokens,)
CUT = -1  # in place of a token that lies in the window before


@dataclass
class _Order:
    """Of each context, how often each token follows it, and the discount that all counts lose."""

    counts: Mapping[tuple[int, ...], Counter[int]]
    discount: float = field(init=False)

    def __post_init__(self) -> None:
        found = Counter(count for following in self.counts.values() for count in following.values())
        once, twice = found[1], found[2]
        self.discount = once / (once + 2 * twice) if once else 0.5

    def mixed(self, context: tuple[int, ...], lower: Chances) -> Chances:
        """The chances behind `context`, where what the discount frees goes to those of the shorter one."""
        following = self.counts.get(context)
        if following is None:
            return lower
        total = following.total()
        chances = lower * (self.discount * len(following) / total)
        tokens = np.fromiter(following, np.int64, len(following))
        counts = np.fromiter(following.values(), np.float64, len(following))
        chances[tokens] += (counts - self.discount) / total
        return chances


class Trigram:
    """Learnt from windows as a network learns from them: padding and unknown tokens are no targets."""

    def __init__(self, text: Vocabulary, examples: Examples) -> None:
        self._text = text
        triples: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for first, second, token in _triples(text, examples):
            triples[first, second][token] += 1
        # Shorter contexts count in how many ways, not how often (continuation counts).
        pairs: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for (_, second), following in triples.items():
            pairs[(second,)].update(following.keys())
        single: dict[tuple[int, ...], Counter[int]] = {(): Counter()}
        for following in pairs.values():
            single[()].update(following.keys())
        self._orders = (_Order(single), _Order(pairs), _Order(triples))
        even = np.full(len(text), 1 / (len(text) - len(text.uncounted)))
        even[list(text.uncounted)] = 0.0
        self._singles = self._orders[0].mixed((), even)
        self._kept: dict[int, Chances] = {}

    def chances(self, first: int, second: int) -> Chances:
        """The probability of each token behind two others. Sums to 1."""
        if second not in self._kept:
            self._kept[second] = self._orders[1].mixed((second,), self._singles)
        return self._orders[2].mixed((first, second), self._kept[second])

    def scores(self, examples: Examples) -> Tensor:
        """(n, T, 2), as the metrics of the next token take them."""
        special = list(self._text.special)
        found = torch.zeros(*examples.targets.shape, 2)
        found[..., 1] = -1.0
        firsts = _firsts(self._text, examples.inputs)
        counted = torch.ones_like(examples.targets, dtype=torch.bool)
        for index in special:
            counted &= examples.targets != index
        places: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        for row, place in counted.nonzero().tolist():
            places[int(firsts[row, place]), int(examples.inputs[row, place])].append((row, place))
        for (first, second), where in places.items():
            chances = self.chances(first, second)
            ranked = chances.copy()
            ranked[special] = -1.0
            for row, place in where:
                token = int(examples.targets[row, place])
                above = int((ranked >= ranked[token]).sum()) - 1
                found[row, place] = torch.tensor([float(np.log(chances[token])), float(above)])
        return found


def _firsts(text: Vocabulary, inputs: Tensor) -> Tensor:
    """(n, T): the token before each input; the beginning before that of a line. What came before a window that goes on
    with a line is not known, to a network neither: a context of its own."""
    opening = torch.where(inputs[:, :1] == text.begin, text.begin, CUT)
    return torch.cat([opening, inputs[:, :-1]], 1)


def _triples(text: Vocabulary, examples: Examples) -> Iterable[tuple[int, int, int]]:
    firsts = _firsts(text, examples.inputs)
    counted = torch.ones_like(examples.targets, dtype=torch.bool)
    for index in text.uncounted:
        counted &= examples.targets != index
    columns = (values[counted].tolist() for values in (firsts, examples.inputs, examples.targets))
    return zip(*columns, strict=True)
