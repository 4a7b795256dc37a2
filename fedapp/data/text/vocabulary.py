"""How text becomes tokens. A vocabulary is public: it is known before any client's text is read."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path

from fedapp.common.errors import ConfigError

__all__ = ["BEGIN", "END", "PADDING", "SPECIAL", "UNKNOWN", "Characters", "Vocabulary", "Words", "shipped_words"]

SPECIAL = ("<padding>", "<unknown>", "<begin>", "<end>")
PADDING, UNKNOWN, BEGIN, END = range(len(SPECIAL))
SHIPPED = Path(__file__).with_name("words.json")
# What follows an apostrophe is a word of its own, as in "I'll" and "banish'd"; the rest are runs of letters.
CLITICS = ("'s", "'d", "'ll", "'t", "'st", "'re", "'ve", "'m")
WORD = re.compile(rf"(?:{'|'.join(CLITICS)})(?![^\W\d_])|[^\W\d_]+")
# Typographic quotes and dashes, spaces that do not break, and tabs.
TYPOGRAPHIC = str.maketrans("\u2018\u2019\u201c\u201d\u2013\u2014\u00a0\t", "''\"\"--  ")


@dataclass(frozen=True)
class Vocabulary(ABC):
    """`tokens` by index. `padding`, `unknown`, `begin` and `end` are the indices of four of them; text has none."""

    tokens: tuple[str, ...]
    padding: int = PADDING
    unknown: int = UNKNOWN
    begin: int = BEGIN
    end: int = END

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def special(self) -> tuple[int, ...]:
        """Indices of what is no part of any text."""
        return (self.padding, self.unknown, self.begin, self.end)

    @property
    def uncounted(self) -> tuple[int, ...]:
        """Indices that are no target to be learnt: there is nothing there, or nobody knows what."""
        return (self.padding, self.unknown)

    @cached_property
    def sha256(self) -> str:
        """Of all tokens in their order: server and clients must agree on it."""
        return sha256(json.dumps([self.tokens, self.special]).encode()).hexdigest()

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Indices of the tokens of `text`, without those of its beginning and end."""

    @abstractmethod
    def join(self, indices: Sequence[int]) -> str:
        """The text of these tokens."""

    def begun(self, text: str) -> tuple[str, str]:
        """What of `text` is whole tokens, and a token that has begun behind it; the second is "" where tokens cannot be
        told to have begun."""
        return text, ""

    def continued(self, text: str, index: int) -> str:
        """`text` with a token behind it, as somebody would type it; one that has begun is completed."""
        return text + self.join([index])


@dataclass(frozen=True)
class _Listed(Vocabulary):
    """Tokens that are looked up in the list."""

    @cached_property
    def _index(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self.tokens)}

    @abstractmethod
    def pieces(self, text: str) -> list[str]:
        """`text` in parts, each of which is a token or unknown."""

    def encode(self, text: str) -> list[int]:
        return [self._index.get(piece, UNKNOWN) for piece in self.pieces(text)]


@dataclass(frozen=True)
class Characters(_Listed):
    """Printable ASCII and the line's end. Typographic quotes and dashes count as their plain forms."""

    tokens: tuple[str, ...] = (*SPECIAL, "\n", *(chr(code) for code in range(32, 127)))

    def pieces(self, text: str) -> list[str]:
        return list(text.translate(TYPOGRAPHIC))

    def join(self, indices: Sequence[int]) -> str:
        return "".join(self.tokens[index] for index in indices)


@dataclass(frozen=True)
class Words(_Listed):
    """Lower-case words of a list; what is no letter separates them, and what follows an apostrophe is one of its own.

    `size` words are taken from the shipped list, then `extra` ones. Raises ConfigError for a size it does not have,
    and for what is no word.
    """

    tokens: tuple[str, ...] = field(init=False, default=())
    size: int = 8000
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = shipped_words()
        if not 1 <= self.size <= len(known):
            raise ConfigError(f"data.vocabulary_size={self.size}: must lie in 1..{len(known)}, the words of the list")
        for word in self.extra:
            if not isinstance(word, str) or WORD.findall(word) != [word] or word != word.lower():
                raise ConfigError(f"data.extra_words: {word!r} is no single lower-case word; such as [hath,doth]")
        tokens = dict.fromkeys((*SPECIAL, *CLITICS, *known[: self.size], *self.extra))
        object.__setattr__(self, "tokens", tuple(tokens))

    def pieces(self, text: str) -> list[str]:
        return WORD.findall(text.translate(TYPOGRAPHIC).lower())

    def begun(self, text: str) -> tuple[str, str]:
        found = re.search(r"'?[^\W\d_]+$", text)
        return (text[: found.start()], found[0].lower()) if found else (text, "")

    def continued(self, text: str, index: int) -> str:
        """With a space behind the word, and one before it unless it begins with an apostrophe."""
        (before, begun), token = self.begun(text), self.tokens[index]
        close = begun or not before or before[-1].isspace() or token.startswith("'")
        return f"{before}{'' if close else ' '}{token} "

    def join(self, indices: Sequence[int]) -> str:
        words = " ".join(self.tokens[index] for index in indices)
        return words.replace(" '", "'")


@lru_cache(maxsize=1)
def shipped_words() -> tuple[str, ...]:
    """The words that come with the app: those of BERT's vocabulary (Devlin et al. 2019; Apache-2.0), which is of public
    books and encyclopedias, in its order, the frequent ones first."""
    lines: list[str] = json.loads(SHIPPED.read_text("utf-8"))["words"]
    return tuple(word for line in lines for word in line.split())
