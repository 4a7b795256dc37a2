"""Text of your own: a client for each file of a folder, or for each user of JSON lines."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.findings import Findings
from fedapp.data.source import Examples, Pooled
from fedapp.data.text.text_files import by_user
from fedapp.data.text.text_source import TextSource

__all__ = ["Text"]


@dataclass(frozen=True, kw_only=True)
class Text(TextSource):
    """`path`: a folder in which each file, or folder of files, is a client by its name; or a file of JSON lines with
    "text" and "user". On a device the file or folder at its data-path is the client's text. A line is one of a file, or
    of a "text". `test_path`, a file or folder, is the server's test data in place of held-out clients."""

    owner: ClassVar[str] = "user"
    path: str | None = None
    test_path: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.test_path is not None and self.test_clients:
            raise ConfigError(
                f"data.test_path={self.test_path}, data.test_clients={self.test_clients}: set one of them; the other is"
                " null or 0"
            )

    def pooled(self) -> Pooled:
        if self.path is None:
            raise DataError("data.path: is needed in a simulation: a folder of text files, or a file of JSON lines")
        path = Path(self.path).expanduser()
        if not path.exists():
            raise DataError(f"{path}: there is no such file or folder")
        pooled = self.windows_of(by_user(path), str(path))
        return pooled if self.test_path is None else Pooled(pooled.train, self.test(), pooled.columns)

    def findings(self) -> Findings:
        """Of a simulation's text; on devices nobody sees all of it."""
        return Findings() if self.path is None else super().findings()

    def test(self) -> Examples | None:
        if self.test_path is not None:
            return self.local(Path(self.test_path).expanduser())
        return None if self.path is None else self.pooled().test
