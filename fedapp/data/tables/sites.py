"""The files of a table that lies in several: one a site, in a folder, by a pattern, or each in a folder of its own."""

from collections.abc import Iterator
from glob import has_magic
from pathlib import Path

from fedapp.common.errors import DataError
from fedapp.data.checks import known
from fedapp.data.leavings import entries, is_leaving

__all__ = ["site_files"]

ENDINGS = (".csv", ".tsv", ".txt", ".parquet", ".csv.gz", ".tsv.gz", ".txt.gz")


def site_files(path: Path) -> dict[str, Path]:
    """By site, its file: of one file, or of a folder or a pattern such as /data/*.csv all files, in the order of their
    names. A site is called as its file without ending, or as the folder that it is in.

    Raises DataError where there is none, or two of one name.
    """
    if (path.exists() and not path.is_dir()) or not (path.exists() or has_magic(str(path))):
        return {_stem(path): path}
    files = list(_below(path)) if path.is_dir() else _matching(path)
    sites: dict[str, Path] = {}
    for name, file in files:
        if name in sites:
            raise DataError(
                f"{file}: {sites[name]} is of a site {name!r} too. One file is one site; rename one of them"
            )
        sites[name] = file
    if not sites:
        there = [entry.name for entry in entries(path)] if path.is_dir() else []
        raise DataError(f"{path}: no tables, which are named *{' *'.join(ENDINGS)}; it holds {known(there)}")
    return sites


def _below(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files of a folder, and of the folders in it, which then name them."""
    for entry in entries(folder):
        if entry.is_dir():
            yield from ((entry.name, file) for _, file in _below(entry))
        elif entry.name.lower().endswith(ENDINGS):
            yield _stem(entry), entry


def _matching(pattern: Path) -> list[tuple[str, Path]]:
    """What a pattern matches, called after the files, or where they are called alike after their folders."""
    found = sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    files = [file for file in found if file.is_file() and not is_leaving(file.name)]
    alike = len({_stem(file) for file in files}) < len(files)
    return [(file.parent.name if alike else _stem(file), file) for file in files]


def _stem(file: Path) -> str:
    """The name without .csv, .csv.gz and the like."""
    ending = max((end for end in ENDINGS if file.name.lower().endswith(end)), key=len, default=file.suffix)
    return file.name[: len(file.name) - len(ending)] if ending else file.name
