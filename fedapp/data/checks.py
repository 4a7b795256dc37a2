"""Checks of config values that several data sets share. Each raises a ConfigError that opens with the key."""

from collections.abc import Sequence
from typing import Any

from fedapp.common.errors import ConfigError
from fedapp.data.tables.text import clean

__all__ = [
    "check_choice",
    "check_fraction",
    "check_grey_range",
    "check_roles",
    "check_size",
    "given_classes",
    "known",
    "names",
]


def check_fraction(value: float, key: str) -> None:
    """`value` is a share of the examples: at least 0 and below 1."""
    if not 0 <= value < 1:
        raise ConfigError(f"{key}={value}: must be at least 0 (nothing is held out) and below 1")


def check_choice(value: object, choices: Sequence[object], key: str) -> None:
    if value not in choices:
        raise ConfigError(f"{key}={value!r}: must be one of {known(choices)}")


def check_size(size: int, channels: int) -> None:
    """Images are (channels, size, size)."""
    if size < 1:
        raise ConfigError(f"data.size={size}: the side of the images in pixels, at least 1")
    check_choice(channels, (1, 3), "data.channels")


def given_classes(classes: Sequence[object] | None, path: object) -> tuple[str, ...] | None:
    """The names in data.classes; None where they are to be inferred from the data at `path`."""
    if classes is not None:
        return names(classes, "data.classes", at_least=2)
    if path is None:
        raise ConfigError(
            "data.classes: must be set where data.path is not. Devices and server cannot infer the classes, since"
            " nobody sees all the data"
        )
    return None


def check_grey_range(grey_range: Sequence[float] | None) -> None:
    if grey_range is not None and (len(grey_range) != 2 or not grey_range[0] < grey_range[1]):
        raise ConfigError(
            f"data.grey_range={list(grey_range)}: must be what is black and what is white, such as [0,4095]"
        )


def check_roles(roles: Sequence[tuple[str, Sequence[str]]]) -> None:
    """`roles` are config keys with the columns that they name: a column has one role."""
    taken: dict[str, str] = {}
    for key, columns in roles:
        for column in columns:
            if column in taken:
                raise ConfigError(f"{key}: column {column!r} is named in {taken[column]} too. Name it in one of them")
            taken[column] = key


def names(values: Sequence[Any], key: str, at_least: int) -> tuple[str, ...]:
    """`values` as distinct text. Whole numbers become their digits; YAML's true, null or 1.0 must be quoted,
    since nobody can tell how the table spells them."""
    if isinstance(values, str):
        raise ConfigError(f"{key}={values!r}: must be a list, such as [{values}]")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ConfigError(f"{key}: {value!r} is not text. Quote it, spelt as in the data: '{value}'")
    texts = tuple(clean(str(value)) for value in values)
    if len(set(texts)) < len(texts):
        raise ConfigError(f"{key}: {max(texts, key=texts.count)!r} is listed more than once")
    if len(texts) < at_least:
        raise ConfigError(f"{key}={list(texts)}: needs {at_least} or more")
    return texts


def known(values: Sequence[object], limit: int = 20) -> str:
    """`values` for a message, cut after `limit`."""
    shown = ", ".join(repr(value) for value in values[:limit])
    return shown + (f" and {len(values) - limit} more" if len(values) > limit else "") if values else "(none)"
