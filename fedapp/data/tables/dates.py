"""Dates as tables spell them, as days since 1970-01-01."""

import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
from numpy.typing import NDArray

__all__ = ["parse_dates"]

CLOCK = r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?P<part>[.,]\d+)?)?"
TIME = rf"(?:[ T]{CLOCK}\s*(?P<zone>Z|[+-]\d\d:?\d\d)?)?"
YEAR_FIRST = re.compile(rf"(?P<a>\d{{4}})(?P<mark>[-/.])(?P<b>\d{{1,2}})(?P=mark)(?P<c>\d{{1,2}}){TIME}", re.ASCII)
YEAR_LAST = re.compile(rf"(?P<a>\d{{1,2}})(?P<mark>[-/.])(?P<b>\d{{1,2}})(?P=mark)(?P<c>\d{{4}}){TIME}", re.ASCII)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
YMD, DMY, MDY = ("year", "month", "day"), ("day", "month", "year"), ("month", "day", "year")


def parse_dates(texts: Collection[str], day_first: bool | None) -> tuple[list[NDArray[np.float64]], str | None]:
    """Each text in days, NaN where it is no date: one array, or two where day and month cannot be told apart, and then
    a text that shows it.

    `day_first` says whether 03/04/2021 is the third of April; None: as all texts together show. Points mean day first.
    """
    first, second = (_days(texts, order) for order in (DMY, MDY))
    if day_first is not None:
        return [first if day_first else second], None
    counts = [int(np.isfinite(values).sum()) for values in (first, second)]
    if counts[0] == counts[1] and not np.array_equal(first, second, equal_nan=True):
        differ = np.flatnonzero(~((first == second) | (np.isnan(first) & np.isnan(second))))
        return [first, second], list(texts)[int(differ[0])]
    return [first if counts[0] >= counts[1] else second], None


def _days(texts: Collection[str], order: Sequence[str]) -> NDArray[np.float64]:
    values = np.full(len(texts), np.nan)
    for at, text in enumerate(texts):
        parts: Sequence[str] = YMD
        found = YEAR_FIRST.fullmatch(text)
        if found is None:
            found, parts = YEAR_LAST.fullmatch(text), order
            if found is not None and found["mark"] == ".":
                parts = DMY
        if found is not None:
            values[at] = _moment(found, parts)
    return values


def _moment(found: re.Match[str], order: Sequence[str]) -> float:
    day = dict(zip(order, (int(found[part]) for part in "abc"), strict=True))
    clock = {name: int(found[name] or 0) for name in ("hour", "minute", "second")}
    zone = UTC
    if (text := found["zone"]) and text != "Z":
        offset = timedelta(hours=int(text[1:3]), minutes=int(text[-2:]))
        zone = timezone(-offset if text[0] == "-" else offset)
    try:
        moment = datetime(day["year"], day["month"], day["day"], **clock, tzinfo=zone)
    except ValueError:
        return float("nan")
    part = float((found["part"] or ".0").replace(",", "."))
    return (moment - EPOCH) / timedelta(days=1) + part / 86_400
