"""What a tracker is: an option of conf/tracker/, and the store that it opens for one run."""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

from pydantic import Field

from fedapp.common.errors import ConfigError
from fedapp.config import Config, option

__all__ = ["AboutRun", "Listener", "Store", "Tracker", "about_run", "tracker_of"]


@dataclass(frozen=True)
class AboutRun:
    """Of a run, what a tracker is told at its start. `config`: resolved. `private`: it has differential privacy, so
    that of single clients nothing but what they have spent may go elsewhere."""

    directory: Path
    name: str
    tags: Sequence[str]
    config: Mapping[str, Any]
    num_clients: int
    private: bool


class Listener(Protocol):
    """Who is told what the record of a run holds, when it is written there."""

    def add_round(self, metrics: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl."""

    def add_clients(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Lines of clients.jsonl, of one round."""

    def finish(self, summary: Mapping[str, Any]) -> None:
        """The run has ended, and its directory is complete but for the report."""

    def close(self) -> None:
        """The run was interrupted: it may go on in another process."""


class Store(Protocol):
    """One run in a tracker. `identity`: by which another process goes on with it."""

    @property
    def identity(self) -> str: ...

    def log(self, values: Mapping[str, float], step: int) -> None: ...

    def finish(self, values: Mapping[str, float], files: Sequence[Path], *, failed: bool) -> None:
        """The figures and files of the end. `files` are all there."""

    def close(self) -> None:
        """Leave the run as it is."""


@dataclass(frozen=True)
class Tracker(ABC):
    """`sites`: with so many clients or fewer each has its own figures (`site/3/val_accuracy`); 0: none has.
    `artifacts`: whether model, config and report go there, too."""

    package: ClassVar[str] = ""  # that must be installed
    extra: ClassVar[str] = ""  # that brings it
    sites: Annotated[int, Field(ge=0)] = 50
    artifacts: bool = True

    def check(self) -> None:
        """Raises ConfigError where this cannot work here. Called on the server only."""
        if importlib.util.find_spec(self.package) is None:
            raise ConfigError(
                f"tracker={self.extra}: needs the package {self.package}; install it by"
                f" `pip install -e .[{self.extra}]`"
            )

    @abstractmethod
    def open(self, about: AboutRun, identity: str | None) -> Store:
        """A new run, or with `identity` that one."""

    def listeners(self, about: AboutRun) -> Sequence[Listener]:
        """Who is to be told of this run."""
        from fedapp.tracking.tracked_run import TrackedRun

        return (TrackedRun(self, about),)


def about_run(config: Config, directory: Path, num_clients: int, *, private: bool) -> AboutRun:
    run = config.run
    return AboutRun(directory, run.name or directory.name, tuple(run.tags), asdict(config), num_clients, private)


def tracker_of(config: Config) -> Tracker:
    """Raises ConfigError."""
    made = option("tracker", config.tracker, Tracker)
    made.check()
    return made
