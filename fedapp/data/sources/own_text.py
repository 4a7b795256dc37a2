"""Text of your own: a client for each file of a folder, or for each user of JSON lines."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fedapp.common.errors import DataError
from fedapp.data.source import Pooled
from fedapp.data.text.own_file import OwnFile
from fedapp.data.text.text_files import by_user

__all__ = ["Text"]


@dataclass(frozen=True, kw_only=True)
class Text(OwnFile):
    """`path`: a folder in which each file, or folder of files, is a client by its name; or a file of JSON lines with
    "text" and "user". On a device the file or folder at its data-path is the client's text. A line is one of a file, or
    of a "text". `test_path` is such a file or folder."""

    forms: ClassVar[str] = "a folder of text files, or a file of JSON lines"

    def of_all(self, path: Path) -> Pooled:
        if not path.exists():
            raise DataError(f"{path}: there is no such file or folder")
        return self.windows_of(by_user(path), str(path))
