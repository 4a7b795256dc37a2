"""Bytes of a table as text: the encoding that a file says it has, or the only ones in which it can be read."""

import codecs
import re
import unicodedata
from pathlib import Path

from fedapp.common.errors import DataError

__all__ = ["decoded"]

MARKS = [
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
]
# What spreadsheets save in where they do not save UTF-8.
OLDER = ["cp1252", "cp1250", "iso8859-15", "cp1251", "cp1253", "cp1254", "gb18030", "cp932", "big5", "cp949"]
NEUTRAL = set("°·…¿¡–—‘’‚“”„«»€£¥²³½¼¾ºªµ±×§†‰")  # signs beside any script # noqa: RUF001
WORD = re.compile(r"[^\s,;|\"']*[^\x00-\x7f][^\s,;|\"']*")
ONE_WRITING = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "FULLWIDTH": "CJK", "IDEOGRAPHIC": "CJK"}


def decoded(path: Path, content: bytes, encoding: str | None) -> tuple[str, str]:
    """`content` as text, and its encoding's name.

    Without a mark in the file and without `encoding`, it is UTF-8, or an older encoding only where all those that make
    words of it read the same. Raises DataError, naming the row, and what the candidates read there.
    """
    for mark, name in MARKS:
        if content.startswith(mark):
            return _strict(path, content[len(mark) :], name), f"{name} (marked)"
    if encoding is not None:
        return _strict(path, content, encoding), encoding
    if (wide := _two_bytes(content)) is not None:
        return _strict(path, content, wide), wide
    try:
        return content.decode("utf-8"), "utf-8"
    except UnicodeDecodeError as error:
        return _older(path, content, error)


def _strict(path: Path, content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: {_where(error)} is not {encoding}. Set data.encoding to what it was saved in"
        ) from error


def _where(error: UnicodeDecodeError) -> str:
    row = error.object.count(b"\n", 0, error.start) + 1
    return f"row {row}: byte 0x{error.object[error.start]:02x}"


def _two_bytes(content: bytes) -> str | None:
    """UTF-16 without a mark: every other byte of Latin text is zero."""
    sample = content[:10_000]
    for first, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if (
            len(sample) >= 4
            and sample[first::2].count(0) > 0.4 * len(sample) / 2
            and not sample[1 - first :: 2].count(0)
        ):
            return name
    return None


def _older(path: Path, content: bytes, error: UnicodeDecodeError) -> tuple[str, str]:
    readings: dict[str, str] = {}
    for encoding in OLDER:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if all(map(_is_word, set(WORD.findall(text)))):
            readings.setdefault(text, encoding)
    if len(readings) == 1:
        return next(iter(readings.items()))
    words = [(encoding, set(WORD.findall(text))) for text, encoding in readings.items()]
    shared = set.intersection(*(found for _, found in words)) if words else set()
    shown = [f"data.encoding={encoding} reads {min(found - shared)!r}" for encoding, found in words if found - shared]
    remedy = f": {', '.join(shown[:5])}" if shown else ""
    raise DataError(
        f"{path}: {_where(error)} is not UTF-8. Save it as CSV in UTF-8, or set data.encoding to what it was saved"
        f" in{remedy}"
    ) from error


def _is_word(word: str) -> bool:
    """Whether all letters are of one script, and the rest are signs that tables hold."""
    scripts = set()
    for letter in word:
        if letter.isascii():
            if letter.isalpha():
                scripts.add("LATIN")
        elif letter not in NEUTRAL:
            if not unicodedata.category(letter).startswith(("L", "M")):
                return False
            script = unicodedata.name(letter, "?").partition(" ")[0]
            scripts.add(ONE_WRITING.get(script, script))
    return len(scripts) <= 1
