"""Vocabularies are public, and windows of text are as a model of the next token needs them."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase, Strip
from tokenizers.pre_tokenizers import Whitespace, WhitespaceSplit

from fedapp.common.errors import ConfigError, DeviceError
from fedapp.data.sources.own_text import Text
from fedapp.data.text.token_windows import TokenWindows, prompt
from fedapp.data.text.tokenizer_file import minilm_tokenizer, read_tokenizer
from fedapp.data.text.vocabulary import BEGIN, CLITICS, END, PADDING, SPECIAL, UNKNOWN, Characters, Words, shipped_words

WORDS = Words(size=2000)


def test_the_shipped_list_has_words_once_and_the_frequent_ones_first() -> None:
    words = shipped_words()
    assert len(set(words)) == len(words) > 20_000
    assert all(word.isascii() and word.isalpha() and word.islower() for word in words)
    assert {"the", "of", "and", "in", "to", "was"} <= set(words[:20])


def test_special_tokens_come_first_and_no_text_has_them() -> None:
    for vocabulary in (WORDS, Characters()):
        assert vocabulary.tokens[:4] == SPECIAL
        assert not {PADDING, BEGIN, END} & set(vocabulary.encode("<padding> <begin> <end> to be"))


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("To be, or not to be: that's it.", ["to", "be", "or", "not", "to", "be", "that", "'s", "it"]),
        ("I\u2019ll  don't\nBANISH'D", ["i", "'ll", "don", "'t", "banish", "'d"]),
        ("o'er 42 snow-white", ["o", "er", "snow", "white"]),
        ("Größe état", ["größe", "état"]),
    ],
)
def test_words(text: str, pieces: list[str]) -> None:
    assert WORDS.pieces(text) == pieces


def test_words_of_ones_own_are_added_once() -> None:
    found = Words(size=10, extra=("hath", "the", "hath"))
    assert found.tokens == (*SPECIAL, *CLITICS, *shipped_words()[:10], "hath")
    assert found.encode("hath the fnord") == [found.tokens.index("hath"), found.tokens.index("the"), UNKNOWN]


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(codec="ascii", exclude_characters="\t"), max_size=60))
def test_characters_come_back(text: str) -> None:
    found = Characters()
    indices = found.encode(text)
    back = found.join([index for index in indices if index != UNKNOWN])
    assert back == "".join(letter for letter in text if letter == "\n" or letter.isprintable())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.sampled_from(["the", "river", "fnord", "of"]), max_size=12), max_size=6), st.integers(2, 7))
def test_windows_hold_each_token_of_each_line_once(lines: list[list[str]], length: int) -> None:
    """Inputs and targets of a line, put together, are the line between its beginning and its end; a window is missing
    only where there is nothing to learn."""
    gathered = TokenWindows(WORDS, length)
    gathered.add("me", (" ".join(line) for line in lines))
    examples = gathered.examples()
    assert examples.inputs.shape == examples.targets.shape == (len(examples), length)
    assert torch.equal(
        examples.inputs[:, 1:][examples.inputs[:, 1:] != PADDING],
        examples.targets[:, :-1][(examples.inputs[:, 1:] != PADDING)],
    )
    assert examples.groups is not None
    for number, line in enumerate(lines):
        whole = [*WORDS.encode(" ".join(line)), END]
        wanted = [whole[start : start + length] for start in range(0, len(whole), length)]
        wanted = [window for window in wanted if set(window) - {UNKNOWN, END}]
        own = examples.targets[examples.groups == number].tolist()
        assert [[token for token in window if token != PADDING] for window in own] == wanted
    assert list(gathered.owners) == ["me"] * len(examples)


def test_a_prompt_ends_with_the_text() -> None:
    the, river = WORDS.encode("the river")
    assert prompt(WORDS, 4, "the river").tolist() == [BEGIN, the, river, PADDING]
    assert prompt(WORDS, 2, "of the river").tolist() == [the, river]
    assert prompt(WORDS, 3, "").tolist() == [BEGIN, PADDING, PADDING]


@pytest.mark.parametrize("name", ["learned", "Learnt", "auto", "data", "clients"])
def test_a_vocabulary_learnt_from_clients_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ConfigError, match="would tell the server, and every client, which rare words"):
        Text(vocabulary=name)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"vocabulary": "/x/tokenizer.json"}, "goes into data.tokenizer"),
        ({"vocabulary_size": 0}, "data.vocabulary_size=0: must lie in 1"),
        ({"vocabulary_size": 10**6}, "must lie in 1"),
        ({"extra_words": ["two words"]}, "is no single lower-case word"),
        ({"extra_words": ["Hath"]}, "is no single lower-case word"),
        ({"window": 1}, r"data.window=1: must lie in 2\.\.4096"),
        ({"test_clients": -1}, "data.test_clients=-1"),
        ({"test_clients": 1, "test_path": "/x"}, "set one of them"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_settings_are_refused(settings_: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Text(**settings_)  # type: ignore[arg-type]


def test_a_tokenizer_file_keeps_its_indices(tmp_path: Path) -> None:
    """What it lacks of the special tokens is put behind its own."""
    made = Tokenizer(WordLevel({"to": 0, "[UNK]": 1, "be": 2, "[PAD]": 3}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()  # type: ignore[assignment]
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    found = read_tokenizer(path)
    assert found.encode("to be fnord") == [0, 2, 1]
    assert (found.padding, found.unknown, found.begin, found.end) == (3, 1, 4, 5)
    assert found.tokens == ("to", "[UNK]", "be", "[PAD]", "<begin>", "<end>")
    assert found.uncounted == (3, 1, 5)
    assert found.join([0, 2, 4]) == "to be"
    schema = Text(tokenizer=str(path)).schema()
    assert (schema.vocabulary, schema.kind) == (6, "next_token")
    assert prompt(found, 5, "to be").tolist() == [4, 0, 2, 3, 3]


@pytest.mark.parametrize("pieces", [Whitespace, WhitespaceSplit])
def test_no_text_is_a_special_token(pieces: type, tmp_path: Path) -> None:
    tokens = ["[PAD]", "[UNK]", "<s>", "</s>", "hello", "world"]
    made = Tokenizer(WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="[UNK]"))
    made.pre_tokenizer = pieces()
    made.add_special_tokens(["[PAD]", "<s>", "</s>"])
    made.save(str(tmp_path / "tokenizer.json"))
    found = read_tokenizer(tmp_path / "tokenizer.json")
    assert found.uncounted == (0, 1)
    indices = found.encode("hello [PAD] world </s>")
    assert [index for index in indices if index != found.unknown] == [4, 5]
    assert found.unknown in indices


def test_what_looks_like_a_special_token_is_read_as_text(tmp_path: Path) -> None:
    """Its characters are in the text, as those of any other word."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[", "]", "PAD", "SEP", "hello", "world"]
    made = Tokenizer(WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()  # type: ignore[assignment]
    made.add_special_tokens(["[PAD]", "[SEP]"])
    made.save(str(tmp_path / "tokenizer.json"))
    found = read_tokenizer(tmp_path / "tokenizer.json")
    assert found.join(found.encode("hello [PAD] world [SEP]")) == "hello [ PAD ] world [ SEP ]"


def test_the_digest_is_of_the_rules_too(tmp_path: Path) -> None:
    """The same tokens under another normaliser are other tokens of the same text."""
    made, digests = Tokenizer(WordLevel({"to": 0, "[UNK]": 1}, unk_token="[UNK]")), set()
    for normalizer in (Lowercase(), Strip()):
        made.normalizer = normalizer  # type: ignore[assignment]
        made.save(str(tmp_path / "tokenizer.json"))
        digests |= {read_tokenizer(tmp_path / "tokenizer.json").sha256 for _ in range(2)}
    assert len(digests) == 2


def test_what_is_no_tokenizer_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be an absolute path"):
        Text(tokenizer="tokenizer.json").schema()
    path = tmp_path / "no.json"
    path.write_text(json.dumps({"no": "tokenizer"}))
    with pytest.raises(DeviceError, match="is no tokenizer file"):
        Text(tokenizer=str(path)).schema()


def test_a_word_goes_on_with_a_text_as_one_types_it() -> None:
    words = Words(size=500)
    man, clitic = words.encode("man")[0], words.encode("'s")[0]
    assert words.continued("the old m", man) == "the old man "
    assert words.continued("the old", man) == "the man "  # "old" has begun, too
    assert words.continued("the old ", man) == "the old man "
    assert words.continued("", man) == "man "
    assert words.continued("the man.", man) == "the man. man "
    assert words.continued("3", clitic) == "3's "


def test_a_part_of_a_word_goes_on_with_the_word() -> None:
    pieces = minilm_tokenizer()
    be, ing, or_ = (pieces.tokens.index(token) for token in ("be", "##ing", "or"))
    assert pieces.continued("To be", ing) == "To being"
    assert pieces.continued("To be", or_) == "To be or"
    assert pieces.continued("To be ", or_) == "To be or"
    assert pieces.continued("", be) == "be"
