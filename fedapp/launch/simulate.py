"""One call of scripts/run.py: checks, then runs on a SuperLink that all runs of the call share."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console

from fedapp.build import build_parts, build_shards
from fedapp.build_server import central_test, check_strategy, load_initial, output_directory, stop_rules
from fedapp.config import Config, compose
from fedapp.errors import ConfigError, FedappError
from fedapp.federation.checkpoint import checkpoint_files
from fedapp.federation.lock import LOCK, only_writer
from fedapp.federation.record import claim
from fedapp.federation.resume import find_checkpoint
from fedapp.launch.follow import FollowedRun, quoted
from fedapp.launch.show import Finished, RoundBar, show_summary
from fedapp.launch.superlink import LocalSuperLink
from fedapp.training import resolve_device

__all__ = ["Launcher", "check", "federation_config"]


def check(config: Config, directory: Path) -> int:
    """Whatever can be known to fail is refused here, with nothing started and nothing left behind.

    Returns the round after which a run is resumed, or -1 for a new one.
    """
    federation = config.federation
    if federation.min_clients > federation.num_clients:
        raise ConfigError(
            f"federation.min_clients={federation.min_clients}: more than federation.num_clients="
            f"{federation.num_clients}, so no round could succeed; lower min_clients"
        )
    if (fewest := check_strategy(config)) > federation.num_clients:
        given = ", ".join(f"{k}={v}" for k, v in config.strategy.aggregation.items() if k != "_target_")
        raise ConfigError(
            f"strategy.aggregation ({given}): needs {fewest} clients a round, more than federation.num_clients="
            f"{federation.num_clients}"
        )
    parts = build_parts(config)
    test = central_test(config, parts)
    if config.privacy.name != "none":
        from fedapp.build_private import check_privacy  # Opacus takes 2 s to import

        check_privacy(config, parts)
    stop_rules(config, parts, server_has_data=test is not None)
    build_shards(config, parts).of(0)
    resumed = find_checkpoint(directory, config.run.resume, json.loads(json.dumps(asdict(config))), quiet=True)
    if resumed is None:
        load_initial(config, parts)
    claim(directory, resume=config.run.resume is not None)
    if (directory / LOCK).exists():
        with only_writer(directory):
            pass
    return resumed.server_round if resumed is not None else -1


def federation_config(config: Config) -> list[str]:
    """Flower's simulation settings: SuperNodes, and a worker process with one core for as many as there are cores."""
    cores = os.cpu_count() or 1
    supernodes = config.run.num_supernodes or cores
    workers = min(supernodes, cores)
    # Ray hides the GPU from workers that did not ask for a share of it.
    on_gpu = resolve_device(config.run.device).type == "cuda"
    gpus = [f"client-resources-num-gpus={1 / workers:.4f}"] if on_gpu else []
    return [f"num-supernodes={supernodes}", "client-resources-num-cpus=1", f"init-args-num-cpus={workers}", *gpus]


class Launcher:
    """Runs one after the other. The SuperLink starts with the first, while its config is being checked."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._superlink: LocalSuperLink | None = None

    def __enter__(self) -> "Launcher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._superlink is not None:
            self._superlink.stop()

    def run(self, overrides: Sequence[str], directory: Path) -> Finished:
        """One run into `directory`, unless the config names another. A refused or failed run is shown, not raised."""
        try:
            return self._run(list(overrides), directory)
        except FedappError as error:
            self._say(str(error))
            with suppress(OSError):
                directory.rmdir()  # Hydra made it; it goes again unless something was written
            return Finished(overrides, directory, {}, str(error))

    def _run(self, overrides: list[str], directory: Path) -> Finished:
        superlink = self._start()
        config = compose(overrides)
        sent = [*overrides, *absolute_paths(config)]
        config = compose(sent)
        directory = output_directory(config, directory)
        done = check(config, directory)
        superlink.wait_until_ready()
        run = FollowedRun(superlink, directory, sent, federation_config(config))
        self._console.print(f"run directory  {directory}", soft_wrap=True, highlight=False)
        try:
            with RoundBar(self._console, config.federation.num_rounds) as bar:
                status = run.follow(bar.update, after=done)
        except KeyboardInterrupt:
            self._console.print(f"stopped{_how_to_go_on(directory)}", style="bold red", soft_wrap=True, highlight=False)
            raise
        summary = _summary(directory)
        if summary:
            show_summary(self._console, summary, directory)
        if status.completed:
            return Finished(overrides, directory, summary, None)
        error = f"the run {status.words}\nIts output is in {run.log}{_how_to_go_on(directory)}"
        self._say(error)
        return Finished(overrides, directory, summary, error)

    def _say(self, error: str) -> None:
        self._console.print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)

    def _start(self) -> LocalSuperLink:
        if self._superlink is None:
            self._superlink = LocalSuperLink()
            self._superlink.start()
        return self._superlink


def absolute_paths(config: Config) -> list[str]:
    """Overrides that make relative paths absolute: a path is meant from where the person is, not the server."""
    paths = {f"data.{key}": config.data.get(key) for key in ("path", "test_path")}
    paths |= {"run.resume": None if config.run.resume == "auto" else config.run.resume}
    full = {key: Path(path).expanduser().absolute() for key, path in paths.items() if path}
    if (resume := full.get("run.resume")) is not None and not resume.exists():
        raise ConfigError(
            f"run.resume={paths['run.resume']}: must be null, auto, a run directory or a checkpoint in one"
        )
    return [f"{key}={quoted(path)}" for key, path in full.items() if str(path) != paths[key]]


def _how_to_go_on(directory: Path) -> str:
    """A hint, where there is a checkpoint."""
    if not checkpoint_files(directory / "checkpoint"):
        return ""
    return f"\nTo go on with it, add run.resume={directory} to the same overrides"


def _summary(directory: Path) -> dict[str, Any]:
    file = directory / "summary.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}
