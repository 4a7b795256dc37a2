"""What data sets of labelled texts share: a text is one example, and its label one of `classes`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.findings import Findings
from fedapp.data.source import Examples, Pooled, Schema
from fedapp.data.text.text_files import read_lines
from fedapp.data.text.text_source import TextSource
from fedapp.data.text.vocabulary import Vocabulary

__all__ = ["LabelledText", "check_room", "check_template", "filled", "whole"]

SLOT = "{text}"


@dataclass(frozen=True, kw_only=True)
class LabelledText(TextSource):
    """Examples are the first `window` tokens of a text, between its beginning and end; targets the indices of its
    label. `template` is what a network reads, with {text} where the text goes: a prompt."""

    template: str = SLOT

    def __post_init__(self) -> None:
        super().__post_init__()
        check_template(self.template)
        if self.window < 3:
            raise ConfigError(f"data.window={self.window}: must be at least 3: a beginning, a token and an end")

    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of their indices."""
        raise NotImplementedError

    def schema(self) -> Schema:
        check_room(self.tokens, self.window, self.template)
        return Schema((self.window,), self.labels(), vocabulary=len(self.tokens), text=self.tokens)

    def inputs_of(self, texts: Sequence[str]) -> Tensor:
        """(n, window) int64."""
        rows = [whole(self.tokens, self.window, text, self.template) for text in texts]
        return torch.stack(rows) if rows else torch.zeros(0, self.window, dtype=torch.int64)

    def examples_of(self, labelled: Iterable[tuple[str, int]]) -> Examples:
        """Of pairs of a text and its label's index."""
        pairs = list(labelled)
        targets = torch.tensor([label for _, label in pairs], dtype=torch.int64)
        return Examples(self.inputs_of([text for text, _ in pairs]), targets)

    def split_by_owner(self, labelled: Mapping[str, Sequence[tuple[str, int]]], name: str) -> Pooled:
        """By client, its texts with their labels' indices. Raises DataError, opening with `name`."""
        owners = [owner for owner, pairs in labelled.items() if pairs]
        examples = self.examples_of(pair for owner in owners for pair in labelled[owner])
        return self.held_out_clients(examples, [owner for owner in owners for _ in labelled[owner]], name)

    def unlabelled(self, path: Path) -> tuple[Tensor, list[str]]:
        """Each line of a file of text; named by its number."""
        lines = list(read_lines(path))
        if not lines:
            raise DataError(f"{path}: holds no text")
        return self.inputs_of(lines), [str(number) for number in range(1, len(lines) + 1)]

    def findings(self) -> Findings:
        """How many texts are longer than the window."""
        inputs = self.pooled().train.inputs
        full = float((inputs[:, -1] != self.tokens.padding).double().mean())
        fact = f"{len(inputs):,} texts; {full:.1%} fill the window of {self.window} tokens, and are cut behind it"
        return Findings((fact,), (f"{full:.0%} of the texts are cut; raise data.window",) if full > 0.5 else ())


def whole(vocabulary: Vocabulary, length: int, text: str, template: str = SLOT) -> Tensor:
    """(T,) int64: the tokens of the template with `text` in it, between a beginning and an end, then padding. What does
    not fit is cut off the end of the text, and not of the template."""
    room, inside = length - 2, vocabulary.encode(filled(template, text))
    if len(inside) > room:
        before, after = template.split(SLOT)
        tail = vocabulary.encode(after)
        inside = [*vocabulary.encode(before + text)[: room - len(tail)], *tail]
    indices = [vocabulary.begin, *inside, vocabulary.end]
    return torch.tensor(indices + [vocabulary.padding] * (length - len(indices)))


def check_template(template: str) -> None:
    """Raises ConfigError for one that has no place for the text, or several."""
    if template.count(SLOT) != 1:
        raise ConfigError(f"data.template={template!r}: must have {SLOT} once, where the text goes")


def check_room(vocabulary: Vocabulary, length: int, template: str) -> None:
    """Raises ConfigError for a template that leaves no token of the window to the text."""
    needed = sum(len(vocabulary.encode(part)) for part in template.split(SLOT)) + 3
    if needed > length:
        raise ConfigError(
            f"data.window={length}: data.template={template!r} leaves no room for a text; set data.window to more than"
            f" {needed}, or take a shorter template"
        )


def filled(template: str, text: str) -> str:
    """Nothing else in a template is read: it may come from a server."""
    before, after = template.split(SLOT)
    return f"{before}{text}{after}"
