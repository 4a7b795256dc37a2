"""One simulation after the other in this program, with workers beside it."""

import os
import shlex
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from logging import ERROR, INFO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedapp.aggregation.protocol import protocol_of
from fedapp.common.cores import allowed_cores
from fedapp.common.errors import FedappError
from fedapp.common.logger import log
from fedapp.common.override_text import quoted
from fedapp.config import Config
from fedapp.data.shared_examples import anonymous_memory, share_shards, take_shards
from fedapp.flower.hosted_grid import simulated_nodes
from fedapp.launch.follow import RunStatus
from fedapp.launch.local.grid import LocalGrid
from fedapp.launch.local.processes import can_fork, is_single_threaded
from fedapp.launch.local.reports import Reports
from fedapp.launch.local.run_log import log_to
from fedapp.launch.local.worker_sources import ForkedWorkers, LocalWorkers, SpawnedWorkers, ThreadsRanError
from fedapp.launch.local.zygote import Zygote
from fedapp.launch.timeline import Timeline
from fedapp.learning.training import resolve_device
from fedapp.server.run import run_federation
from fedapp.server.summary import said
from fedapp.server.training_run import OnRound

if TYPE_CHECKING:
    from fedapp.launch.check import Ready

__all__ = ["LocalEngine", "LocalRun"]


class LocalEngine:
    """What the runs of one call share: a zygote where processes can be forked, and the writer of reports."""

    def __init__(self) -> None:
        # A fork must find one thread. There are more in a program that has done other things before.
        self._zygote = Zygote() if can_fork() and is_single_threaded() else None
        self._reports = Reports(self._zygote)
        self._runs = 0
        self.splits: Path | None = None

    def prepare(self, config: Config, overrides: Sequence[str], directory: Path, *, report: bool = True) -> "LocalRun":
        """Begin a run into `directory`; meanwhile its config can be checked. `report`: whether it gets one."""
        line = shlex.join([*overrides, f"run.output_dir={quoted(directory)}"])
        cores, device = allowed_cores(), resolve_device(config.run.device)
        supernodes = (config.run.num_supernodes or cores) + protocol_of(config).helper_sites
        # A GPU is for one process at a time; it would be the same one for several.
        count = 1 if device.type != "cpu" else min(supernodes, cores)
        settings = {"overrides": line, "supernodes": supernodes}
        workers = self._forked(settings) if device.type == "cpu" else None  # CUDA does not work where one has forked
        self._runs += 1
        timeline = Timeline(of_process=self._runs == 1)
        timeline.mark("imported and composed")
        return LocalRun(
            directory,
            line,
            supernodes,
            count,
            workers or SpawnedWorkers(settings),
            settings,
            self._reports if report else None,
            timeline,
        )

    def _forked(self, settings: dict[str, Any]) -> LocalWorkers | None:
        """None where processes cannot be forked, or the zygote was killed."""
        try:
            return None if self._zygote is None else ForkedWorkers(self._zygote, settings)
        except (EOFError, OSError):
            self._zygote = None
            return None

    def finish(self) -> list[str]:
        return self._reports.finish()

    def end(self) -> None:
        self._reports.end()
        if self._zygote is not None:
            self._zygote.end()


@dataclass
class LocalRun:
    """One run, as `attend` follows it. Its log goes to `flwr.log` in `directory`."""

    directory: Path
    line: str
    supernodes: int
    count: int
    workers: LocalWorkers
    settings: dict[str, Any]
    reports: Reports | None
    timeline: Timeline

    @property
    def log(self) -> Path:
        return self.directory / "flwr.log"

    @property
    def run_directory(self) -> str:
        return str(self.directory)

    @property
    def about(self) -> str:
        """What does the work, for a person."""
        return f"{self.count} worker process{'es' if self.count > 1 else ''}, {allowed_cores()} cores allowed"

    def follow(self, ready: "Ready", on_round: OnRound) -> RunStatus:
        """A run that fails is in the log, and told; it raises nothing."""
        self.timeline.mark("config checked, data loaded and split")
        self.directory.mkdir(parents=True, exist_ok=True)
        with log_to(self.log) as file:
            try:
                self._run(ready, on_round, file)
            except FedappError as error:
                log(ERROR, "fedapp: %s", error)
                return RunStatus("failed", str(error))
            except Exception as error:
                log(ERROR, "the run failed", exc_info=error)
                return RunStatus("failed", f"{type(error).__name__}: {error}")
        return RunStatus.done()

    def end(self) -> None:
        self.workers.end()

    def _run(self, ready: "Ready", on_round: OnRound, file: int) -> None:
        with ExitStack() as stack:
            data = anonymous_memory() if ready.shards is None else share_shards(ready.shards)
            stack.callback(os.close, data)
            if ready.shards is not None:
                take_shards(ready.shards, os.dup(data))  # not once more in this process
            self.workers.share(data, file)
            self.timeline.mark("data shared, workers' parent ready")
            nodes = simulated_nodes(self.supernodes, self.line)
            grid = LocalGrid(nodes, self.count, lambda: self._worker(data, file))
            stack.callback(grid.close)
            self.timeline.mark("workers started")

            def shown(metrics: dict[str, Any]) -> None:
                self.timeline.mark("round 0 judged" if not metrics["round"] else "first round finished")
                on_round(metrics)

            run_federation(
                grid,
                ready.checked.config,
                self.directory,
                time.perf_counter(),
                shlex.split(self.line),
                checked=ready.checked,
                on_round=shown,
                show=self._show,
            )

    def _worker(self, data: int, file: int) -> Any:
        try:
            return self.workers.new()
        except ThreadsRanError:
            log(INFO, "a part of this run starts threads: workers cannot be forked, and start seconds later")
            self.workers.end()
            self.workers = SpawnedWorkers(self.settings)
            self.workers.share(data, file)
            return self.workers.new()

    def _show(self, directory: Path, summary: dict[str, Any]) -> None:
        self.timeline.mark("rounds and final evaluation finished")
        self.timeline.write(directory)
        if self.reports is not None:
            self.reports.write(directory)
        for line in said(summary):
            log(INFO, "%s", line)
        log(INFO, "run_dir=%s", directory)
