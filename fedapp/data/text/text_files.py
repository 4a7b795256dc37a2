"""Text in files: plain text, or JSON lines with a text and its user."""

import json
from collections.abc import Iterator
from pathlib import Path

from fedapp.common.errors import DataError
from fedapp.data.leavings import entries

__all__ = ["JSON_LINES", "by_user", "json_rows", "lines_of", "read_lines"]

JSON_LINES = (".jsonl", ".ndjson")
ENDINGS = (".txt", ".md", *JSON_LINES)


def by_user(path: Path) -> dict[str, list[str]]:
    """By client, its lines. `path` is a folder, in which each file or folder is a client by its name, or a file of JSON
    lines {"text": ..., "user": ...}. Raises DataError, opening with the path."""
    if path.is_dir():
        found = {item.name: list(read_lines(item)) for item in _items(path)}
        if not found:
            raise DataError(f"{path}: holds no files of text ({', '.join(ENDINGS)}) and no folders of them")
        return found
    if path.suffix.lower() not in JSON_LINES:
        raise DataError(
            f"{path}: is no folder and no file of JSON lines (.jsonl); in a simulation each file of a folder is a"
            ' client, or each "user" of JSON lines'
        )
    users: dict[str, list[str]] = {}
    for number, row in json_rows(path):
        user = row.get("user")
        if not isinstance(user, str | int) or isinstance(user, bool) or user == "":
            raise DataError(f'{path}, line {number}: needs "user", a name or a number')
        users.setdefault(str(user), []).extend(_lines(row, path, number))
    return users


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a file, or of all files of text below a folder, that are not empty. Of JSON lines, those of each
    "text". Raises DataError, opening with the path."""
    if path.is_dir():
        for item in _items(path):
            yield from read_lines(item)
    elif path.suffix.lower() in JSON_LINES:
        for number, row in json_rows(path):
            yield from _lines(row, path, number)
    else:
        yield from lines_of(_read(path))


def _items(folder: Path) -> list[Path]:
    return [item for item in entries(folder) if item.is_dir() or item.suffix.lower() in ENDINGS]


def lines_of(text: str) -> list[str]:
    """Those that are not empty."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def _lines(row: dict[str, object], path: Path, number: int) -> list[str]:
    text = row.get("text")
    if not isinstance(text, str):
        raise DataError(f'{path}, line {number}: needs "text", in quotes')
    return lines_of(text)


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Of a file of JSON lines, the number of each line that is not empty, and its object. Raises DataError."""
    for number, line in enumerate(_read(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise DataError(f'{path}, line {number}: is no JSON object, such as {{"text": "...", "user": "..."}}')
        yield number, row


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 at byte {error.start}; save it as UTF-8") from None
