"""Lines of text as windows of tokens: what a model of the next token learns from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedapp.data.source import Examples
from fedapp.data.text.vocabulary import Vocabulary

__all__ = ["TokenWindows", "prompt"]


@dataclass
class TokenWindows:
    """Gathers the windows of lines. A line of n tokens, with its beginning before and its end behind it, is n + 1 pairs
    of a token and the next one; `length` T of them are a window, and what the last one lacks is padding. A window in
    which nothing is to be learnt, since all that follows is unknown, is left out."""

    vocabulary: Vocabulary
    length: int
    _windows: list[list[int]] = field(default_factory=list)
    _lines: list[int] = field(default_factory=list)
    _owners: list[str] = field(default_factory=list)
    _count: int = 0

    def add(self, owner: str, lines: Iterable[str]) -> None:
        """`owner`: whose lines these are."""
        ignored = set(self.vocabulary.uncounted)
        for line in lines:
            indices = [self.vocabulary.begin, *self.vocabulary.encode(line), self.vocabulary.end]
            for start in range(0, len(indices) - 1, self.length):
                window = indices[start : start + self.length + 1]
                if not (set(window[1:]) - ignored - {self.vocabulary.end}):
                    continue
                self._windows.append(window + [self.vocabulary.padding] * (self.length + 1 - len(window)))
                self._lines.append(self._count)
                self._owners.append(owner)
            self._count += 1

    def examples(self) -> Examples:
        """Inputs and targets (n, T) int64, in the order of lines; the windows of one line are one group."""
        windows = torch.tensor(self._windows, dtype=torch.int64).reshape(-1, self.length + 1)
        inputs, targets = windows[:, :-1].contiguous(), windows[:, 1:].contiguous()
        return Examples(inputs, targets, groups=torch.tensor(self._lines, dtype=torch.int64))

    @property
    def owners(self) -> Sequence[str]:
        """Of each window, whose it is."""
        return self._owners


def prompt(vocabulary: Vocabulary, length: int, text: str) -> Tensor:
    """(T,) int64: the last tokens of `text`, with the beginning before them where there is room, then padding."""
    indices = [vocabulary.begin, *vocabulary.encode(text)][-length:]
    return torch.tensor(indices + [vocabulary.padding] * (length - len(indices)))
