"""Numbers as tables spell them: with a point or a comma before the fraction, and marks between thousands."""

import math
import re
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["DECIMALS", "PLAIN", "THOUSANDS", "AmbiguousError", "Marks", "certain", "choices", "parse", "settle"]

DECIMALS, THOUSANDS = (".", ","), (",", ".", " ", "'")
SIMPLE = re.compile(r"[0-9.eE+-]*")  # then what float() takes is a number in the sense of this module
GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}")
SPELLINGS = str.maketrans({"\u2212": "-", "\u2019": "'", "\u00a0": " ", "\u202f": " ", "\u2009": " "})


@dataclass(frozen=True)
class Marks:
    """What stands before the fraction, and between groups of three digits ("": nothing)."""

    decimal: str
    thousands: str = ""

    def __str__(self) -> str:
        return f"decimal mark {self.decimal!r}" + (f", thousands mark {self.thousands!r}" if self.thousands else "")


PLAIN = Marks(".")
ALL = tuple(Marks(decimal, thousands) for decimal in DECIMALS for thousands in ("", *THOUSANDS) if decimal != thousands)


class AmbiguousError(Exception):
    """Texts that are different numbers under several marks; the first of them is `text`."""

    def __init__(self, text: str, marks: Sequence[Marks]) -> None:
        super().__init__(text)
        self.text, self.marks = text, marks


def choices(decimal: str | None, thousands: str | None) -> tuple[Marks, ...]:
    """The marks that can be, where one or both are given."""
    return tuple(
        marks
        for marks in ALL
        if (decimal is None or marks.decimal == decimal)
        and (thousands is None or (marks.thousands in ("", thousands) and marks.decimal != thousands))
    )


@lru_cache
def _pattern(marks: Marks) -> re.Pattern[str]:
    whole = r"\d+" if not marks.thousands else rf"(?:\d{{1,3}}(?:{re.escape(marks.thousands)}\d{{3}})+|\d+)"
    point = re.escape(marks.decimal)
    number = rf"(?:{whole}(?:{point}\d*)?|{point}\d+)(?:e[+-]?\d+)?"
    return re.compile(rf"[+-]?(?:{number}|inf|infinity)", re.IGNORECASE | re.ASCII)


def parse(texts: Collection[str], marks: Marks) -> NDArray[np.float64]:
    """Each text as a number, NaN where it is none."""
    if marks == PLAIN and SIMPLE.fullmatch("".join(texts)):
        with suppress(ValueError):
            return np.array(list(map(float, texts)), dtype=np.float64)
    fits, values = _pattern(marks).fullmatch, np.full(len(texts), np.nan)
    for at, text in enumerate(texts):
        spelt = text if text.isascii() else text.translate(SPELLINGS)
        if fits(spelt):
            if marks.thousands:
                spelt = spelt.replace(marks.thousands, "")
            values[at] = float(spelt.replace(marks.decimal, "."))
    return values


def _readings(texts: Collection[str], allowed: Sequence[Marks]) -> dict[Marks, NDArray[np.float64]]:
    """The marks under which most texts are numbers, and those numbers; marks that change nothing are left out."""
    found = {marks: parse(texts, marks) for marks in allowed}
    most = max(int(np.isfinite(values).sum()) for values in found.values())
    best: dict[Marks, NDArray[np.float64]] = {}
    for marks, values in found.items():
        if np.isfinite(values).sum() == most and not any(
            np.array_equal(values, v, equal_nan=True) for v in best.values()
        ):
            best[marks] = values
    return best


def certain(texts: Collection[str], allowed: Sequence[Marks]) -> str | None:
    """The decimal mark that a column of numbers proves, None where it proves none."""
    readings = _readings(texts, allowed)
    marked = any(mark in text for text in texts for mark in ",.")
    if not marked or len(readings) > 1 or any(np.isnan(values).any() for values in readings.values()):
        return None
    return next(iter(readings)).decimal


def settle(
    texts: Collection[str], allowed: Sequence[Marks], elsewhere: Callable[[], str | None], comma_separates: bool
) -> tuple[Marks, NDArray[np.float64]]:
    """The marks of a column with the distinct `texts`, and the texts' numbers, NaN where one is none.

    `elsewhere` gives the decimal mark that other columns prove. Where cells are separated by commas, a point is taken
    for the decimal mark. Raises AmbiguousError.
    """
    if PLAIN in allowed:
        values = parse(texts, PLAIN)
        if not np.isnan(values).any() and not _may_be_grouped(texts):
            return PLAIN, values
    readings = _readings(texts, allowed)
    if len(readings) > 1 and (proved := elsewhere()) is not None:
        readings = {marks: values for marks, values in readings.items() if marks.decimal == proved} or readings
    if len(readings) > 1 and comma_separates and not any("," in text for text in texts):
        readings = {marks: values for marks, values in readings.items() if marks.decimal == "."} or readings
    if len(readings) > 1:
        different = list(readings.values())
        differ = next(at for at in range(len(texts)) if len({_key(numbers[at]) for numbers in different}) > 1)
        raise AmbiguousError(list(texts)[differ], list(readings))
    return next(iter(readings.items()))


def _key(value: float) -> float | None:
    return None if math.isnan(value) else value


def _may_be_grouped(texts: Collection[str]) -> bool:
    """Whether the points in plain numbers could all as well stand between thousands."""
    pointed = [text for text in texts if "." in text]
    return bool(pointed) and all(GROUPED.fullmatch(text) for text in pointed)
