"""What comes next in a text, by the model of a finished run, as a keyboard suggests it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from fedapp.common.errors import ModelError
from fedapp.data.text.token_windows import prompt
from fedapp.inference.saved import Saved
from fedapp.learning.tasks.next_token import NextToken

__all__ = ["Keyboard", "typed"]

TAB, ENTER, ERASE, INTERRUPT, EOF = "\t", "\r\n", "\x7f\b", "\x03", "\x04"
Suggestions = list[tuple[str, float]]


@dataclass(frozen=True)
class Keyboard:
    """Raises ModelError for a model that does not say the next token."""

    saved: Saved

    def __post_init__(self) -> None:
        if not isinstance(self.saved.task, NextToken):
            raise ModelError(f"--text: the model of this run is one of {self.saved.task.kind}; give it files")

    @property
    def task(self) -> NextToken:
        assert isinstance(self.saved.task, NextToken)
        return self.saved.task

    def after(self, text: str) -> Suggestions:
        """The most probable tokens behind `text`, as a whole, with their probabilities."""
        return self.task.suggestions(self._chances(text).tolist())

    def completing(self, text: str) -> Suggestions:
        """The same while one types: of a word that has begun, those that go on so. Their probabilities are among all
        tokens."""
        return [(self.task.shown(index), chance) for index, chance in self._best(text)]

    def accept(self, text: str) -> str:
        """`text` with the first of these taken; as it is, where there is none."""
        found = self._best(text)
        return self.task.text.continued(text, found[0][0]) if found else text

    def _best(self, text: str) -> list[tuple[int, float]]:
        before, begun = self.task.text.begun(text)
        chances = self._chances(before)
        if begun:
            fitting = torch.tensor([token.startswith(begun) and token != begun for token in self.task.text.tokens])
            chances = torch.where(fitting, chances, 0.0)
        return [(index, chance) for index, chance in self.task.best(chances.tolist()) if chance > 0]

    def _chances(self, text: str) -> torch.Tensor:
        inputs = prompt(self.task.text, self.task.schema.input_shape[0], text)[None]
        return self.saved.tell(inputs, "--text")[0]


def typed(keyboard: Keyboard, keys: Iterator[str], show: Callable[[str, Suggestions], None]) -> str:
    """The text that comes of `keys`, one at a time: Tab takes the first suggestion, Enter and Ctrl-D end it. `show` is
    told the text and its suggestions behind each key."""
    text = ""
    show(text, keyboard.completing(text))
    for key in keys:
        if key in ENTER or key in (INTERRUPT, EOF):
            break
        if key == TAB:
            text = keyboard.accept(text)
        elif key in ERASE:
            text = text[:-1]
        elif key.isprintable():
            text += key
        show(text, keyboard.completing(text))
    return text
