"""One call of scripts/run.py: checks, then runs on the engine that the config names.

What imports torch is imported late: Flower's engine starts meanwhile.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console

from fedapp.common.errors import FedappError
from fedapp.common.quick_import import quick_import
from fedapp.config import Config, compose
from fedapp.launch.flower_engine import FlowerEngine
from fedapp.launch.follow import RunStatus
from fedapp.launch.scarce_memory import lack_of_memory
from fedapp.launch.show import Finished, say_error
from fedapp.launch.show_findings import show_findings

if TYPE_CHECKING:
    from fedapp.launch.check import Ready

__all__ = ["Launcher"]


class EngineRun(Protocol):
    @property
    def log(self) -> Path: ...

    @property
    def run_directory(self) -> str | None: ...

    @property
    def about(self) -> str:
        """What does the work, for a person."""

    def follow(self, ready: "Ready", on_round: Callable[[dict[str, Any]], None]) -> RunStatus:
        """The whole run; `on_round` is called with the metrics of each round."""

    def end(self) -> None:
        """End what was begun for it, whether or not it was followed."""


class Engine(Protocol):
    """`splits`: the folder in which the split of the data is kept for processes that make it for themselves."""

    splits: Path | None

    def prepare(self, config: Config, overrides: Sequence[str], directory: Path) -> EngineRun:
        """Begin what can be begun while the config is being checked."""

    def finish(self) -> list[str]:
        """Wait for what still goes on after the last run. Returns what went wrong with it."""

    def end(self) -> None: ...


class Launcher:
    """Runs one after the other. All runs of a call that have the same engine share it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._engines: dict[str, Engine] = {}

    def __enter__(self) -> "Launcher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()  # reports of the runs that are over, however this call ends
        for engine in self._engines.values():
            engine.end()

    def run(self, overrides: Sequence[str], directory: Path) -> Finished:
        """One run into `directory`, unless the config names another. A refused or failed run is shown, not raised."""
        try:
            return self._run(list(overrides), directory)
        except FedappError as error:
            return self._refused(overrides, directory, str(error))
        except (ImportError, MemoryError) as error:
            if (said := lack_of_memory(error)) is None:
                raise
            return self._refused(overrides, directory, said)

    def _refused(self, overrides: Sequence[str], directory: Path, why: str) -> Finished:
        say_error(self._console, why)
        with suppress(OSError):
            directory.rmdir()  # Hydra made it; it goes again unless something was written
        return Finished(overrides, directory, {}, why)

    def finish(self) -> bool:
        """Wait for the reports. Returns whether all could be written; what could not is shown."""
        faults = [fault for engine in self._engines.values() for fault in engine.finish()]
        for fault in faults:
            say_error(self._console, fault)
        return not faults

    def _run(self, overrides: list[str], directory: Path) -> Finished:
        # Only to start early: what it cannot know, the config says.
        engine = self._engine("flower") if "run.engine=flower" in overrides or on_cluster() else None
        with quick_import():
            from fedapp.launch.attend import attend
            from fedapp.launch.check import absolute_paths, check
            from fedapp.server.build import output_directory

        config = compose(overrides)
        sent = [*overrides, *absolute_paths(config)]
        config = compose(sent) if len(sent) > len(overrides) else config
        directory = output_directory(config, directory)
        # As the clients have it: what they are bound to is the whole config.
        config = replace(config, run=replace(config.run, output_dir=str(directory)))
        engine = engine or self._engine(config.run.engine)
        run = engine.prepare(config, sent, directory)
        try:
            ready = check(config, directory, engine.splits, show=partial(show_findings, self._console))
            self._console.print(run.about, highlight=False)
            rounds = config.federation.num_rounds
            follow = partial(run.follow, ready)
            command = "python scripts/run.py"
            with self._live(config, directory):
                return attend(self._console, run, follow, overrides, directory, num_rounds=rounds, command=command)
        finally:
            run.end()

    @contextmanager
    def _live(self, config: Config, directory: Path) -> Iterator[None]:
        if not config.run.live:
            yield
            return
        from fedapp.launch.live.beside import live_page

        with live_page(directory) as address:
            self._console.print(f"live page  {address}", highlight=False, soft_wrap=True)
            yield

    def _engine(self, name: str) -> Engine:
        if name not in self._engines:
            self._engines[name] = ENGINES[name]()
        return self._engines[name]


def local_engine() -> Engine:
    with quick_import():
        from fedapp.launch.local.engine import LocalEngine

    return LocalEngine()


ENGINES: dict[str, Callable[[], Engine]] = {"local": local_engine, "flower": FlowerEngine}


def on_cluster() -> bool:
    """Whether Ray is to use a cluster, which only Flower's engine knows how to."""
    return bool(os.environ.get("RAY_ADDRESS"))
