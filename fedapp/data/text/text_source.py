"""What all data sets of text share: the vocabulary, the windows, and the clients that are held out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.findings import Findings
from fedapp.data.source import DataSource, Examples, Pooled, Schema
from fedapp.data.text.text_files import read_lines
from fedapp.data.text.token_windows import TokenWindows, prompt
from fedapp.data.text.tokenizer_file import minilm_tokenizer, read_tokenizer
from fedapp.data.text.vocabulary import Characters, Vocabulary, Words

__all__ = ["TextSource"]

LEARNT = ("learn", "learned", "learnt", "auto", "data", "clients", "train")


@dataclass(frozen=True, kw_only=True)
class TextSource(DataSource):
    """Examples are windows of `window` tokens; targets are the tokens that follow. A line is what no split separates.

    `vocabulary` is characters or words; of words, the `vocabulary_size` most frequent ones of the list that comes with
    the app, and `extra_words`. `tokenizer`, the path of a tokenizer file or true (that of all-MiniLM-L6-v2, in the
    extra llm), takes the place of both. `test_clients`, drawn with `split_seed`, are the server's test data: no client
    of a simulation has their text.
    """

    window: int = 20
    vocabulary: str = "words"
    vocabulary_size: int = 8000
    extra_words: Sequence[str] = ()
    tokenizer: str | bool | None = None
    test_clients: int = 0
    split_seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.window <= 4096:
            raise ConfigError(f"data.window={self.window}: must lie in 2..4096 tokens")
        if self.vocabulary.lower() in LEARNT:
            raise ConfigError(
                f"data.vocabulary={self.vocabulary}: a vocabulary learnt from clients' text would tell the server, and"
                " every client, which rare words, names and numbers others write. Take a public one: characters, words"
                " (with data.extra_words for public words of your own), or data.tokenizer=<file>"
            )
        if self.vocabulary not in ("characters", "words"):
            raise ConfigError(
                f"data.vocabulary={self.vocabulary}: must be characters or words; a tokenizer's file goes into"
                " data.tokenizer"
            )
        if self.test_clients < 0:
            raise ConfigError(f"data.test_clients={self.test_clients}: must be 0 (no central evaluation) or more")
        if self.tokenizer is False:
            raise ConfigError(
                "data.tokenizer=false: must be null (data.vocabulary), a tokenizer file, or true (MiniLM's)"
            )
        if self.tokenizer is None:
            self.tokens  # noqa: B018 (what is wrong with it is said now)

    @property
    def owner(self) -> str:
        """What a client is called in this data: `partition.partition_by`."""
        raise NotImplementedError

    @cached_property
    def tokens(self) -> Vocabulary:
        """Raises ConfigError or DeviceError for a vocabulary that cannot be had."""
        if self.tokenizer is not None:
            return minilm_tokenizer() if isinstance(self.tokenizer, bool) else read_tokenizer(Path(self.tokenizer))
        return Words(size=self.vocabulary_size, extra=tuple(self.extra_words)) if self._words else Characters()

    @property
    def _words(self) -> bool:
        return self.vocabulary == "words"

    def schema(self) -> Schema:
        return Schema((self.window,), vocabulary=len(self.tokens), text=self.tokens)

    def windows_of(self, texts: Mapping[str, Iterable[str]], name: str) -> Pooled:
        """`texts`: by client, its lines. Raises DataError, opening with `name`, where no window or client is left."""
        found = TokenWindows(self.tokens, self.window)
        for owner, lines in texts.items():
            found.add(owner, lines)
        if not found.owners:
            raise DataError(f"{name}: holds no text that this vocabulary knows a word of")
        return self.held_out_clients(found.examples(), found.owners, name)

    def held_out_clients(self, examples: Examples, whose: Sequence[str], name: str) -> Pooled:
        """`whose`: of each example, whose it is; the examples of `test_clients` of them are the server's. Raises
        DataError, opening with `name`, where no client is left."""
        owners = list(dict.fromkeys(whose))
        if len(owners) <= self.test_clients:
            raise DataError(
                f"{name}: has {len(owners)} clients with text, too few to hold out"
                f" data.test_clients={self.test_clients}"
            )
        order = torch.randperm(len(owners), generator=torch.Generator().manual_seed(self.split_seed)).tolist()
        away = {owners[index] for index in order[: self.test_clients]}
        held = torch.tensor([owner in away for owner in whose])
        test = examples.take(held.nonzero().flatten()) if away else None
        if test is not None:  # what is drawn of them are whole clients
            numbers = {owner: number for number, owner in enumerate(owners)}
            groups = torch.tensor([numbers[owner] for owner in whose if owner in away])
            test = Examples(test.inputs, test.targets, groups=groups)
        named = {self.owner: [owner for owner in whose if owner not in away]}
        return Pooled(examples.take((~held).nonzero().flatten()), test, named)

    def local(self, path: Path) -> Examples:
        """All text of a device: a file, or a folder of files."""
        found = TokenWindows(self.tokens, self.window)
        found.add("", read_lines(path))
        examples = found.examples()
        if not len(examples):
            raise DataError(f"{path}: holds no text that this vocabulary knows a word of")
        return examples

    def unlabelled(self, path: Path) -> tuple[Tensor, list[str]]:
        """Each line of a file of text, to be gone on with; named by its number."""
        lines = [line for line in read_lines(path) if self.tokens.encode(line)]
        if not lines:
            raise DataError(f"{path}: holds no text")
        inputs = torch.stack([prompt(self.tokens, self.window, line) for line in lines])
        return inputs, [str(number) for number in range(1, len(lines) + 1)]

    def findings(self) -> Findings:
        """How much of the text the vocabulary knows."""
        targets = self.pooled().train.targets
        real = targets != self.tokens.padding
        share = float((targets == self.tokens.unknown)[real].double().mean())
        fact = f"{int(real.sum()):,} tokens in {len(targets):,} windows; {share:.1%} are not in the vocabulary"
        few = f"{share:.0%} of all tokens are not in the vocabulary, and nothing is learnt of them"
        return Findings((fact,), (few,) if share > 0.3 else ())
