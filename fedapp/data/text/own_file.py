"""What texts of your own share: in a simulation the path of everybody's, on the server that of test data."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.findings import Findings
from fedapp.data.source import Examples, Pooled
from fedapp.data.text.text_source import TextSource

__all__ = ["OwnFile"]


@dataclass(frozen=True, kw_only=True)
class OwnFile(TextSource):
    """`path` is a simulation's text, of all clients. `test_path`, of the form of a device's, is the server's test data
    in place of held-out clients. Raises ConfigError where both are set."""

    owner: ClassVar[str] = "user"
    forms: ClassVar[str]  # what `path` may be, for messages
    path: str | None = None
    test_path: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.test_path is not None and self.test_clients:
            raise ConfigError(
                f"data.test_path={self.test_path}, data.test_clients={self.test_clients}: set one of them; the other is"
                " null or 0"
            )

    def of_all(self, path: Path) -> Pooled:
        """The text of all clients. Raises DataError, opening with the path."""
        raise NotImplementedError

    def pooled(self) -> Pooled:
        if self.path is None:
            raise DataError(f"data.path: is needed in a simulation: {self.forms}")
        pooled = self.of_all(Path(self.path).expanduser())
        return pooled if self.test_path is None else Pooled(pooled.train, self.test(), pooled.columns)

    def findings(self) -> Findings:
        """Of a simulation's text; on devices nobody sees all of it."""
        return Findings() if self.path is None else super().findings()

    def test(self) -> Examples | None:
        if self.test_path is not None:
            return self.local(Path(self.test_path).expanduser())
        return None if self.path is None else self.pooled().test
