"""One call of scripts/run.py: checks, then runs on a SuperLink that all runs of the call share.

What imports torch is imported once the SuperLink is starting, which takes as long.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType

from rich.console import Console

from fedapp.common.errors import FedappError
from fedapp.common.quick_import import quick_import
from fedapp.config import Config, compose
from fedapp.launch.local_superlink import LocalSuperLink
from fedapp.launch.show import Finished, say_error
from fedapp.launch.show_findings import show_findings

__all__ = ["Launcher", "federation_config"]


def federation_config(config: Config) -> list[str]:
    """Flower's simulation settings: SuperNodes, and a worker process with one core for as many as there are cores.

    On a Ray cluster (RAY_ADDRESS) the cluster has as many cores as it was started with, and a worker for each.
    """
    from fedapp.learning.training import resolve_device

    cluster = bool(os.environ.get("RAY_ADDRESS"))
    cores = os.cpu_count() or 1
    supernodes = config.run.num_supernodes or cores
    workers = min(supernodes, cores)
    # Ray hides the GPU from workers that did not ask for a share of it.
    on_gpu = resolve_device(config.run.device).type == "cuda"
    gpus = [f"client-resources-num-gpus={1 / workers:.4f}"] if on_gpu else []
    own = [] if cluster else [f"init-args-num-cpus={workers}"]  # Ray takes it for a cluster of its own only
    return [f"num-supernodes={supernodes}", "client-resources-num-cpus=1", *own, *gpus]


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
            say_error(self._console, str(error))
            with suppress(OSError):
                directory.rmdir()  # Hydra made it; it goes again unless something was written
            return Finished(overrides, directory, {}, str(error))

    def _run(self, overrides: list[str], directory: Path) -> Finished:
        superlink = self._start()
        with quick_import():
            from fedapp.launch.attend import attend
            from fedapp.launch.check import absolute_paths, check
            from fedapp.launch.follow import FollowedRun
            from fedapp.server.build import output_directory

        config = compose(overrides)
        sent = [*overrides, *absolute_paths(config)]
        config = compose(sent) if len(sent) > len(overrides) else config
        directory = output_directory(config, directory)
        done = check(config, directory, superlink.splits, show=partial(show_findings, self._console))
        superlink.wait_until_ready()
        run = FollowedRun(superlink.connection, directory, sent, federation_config(config))
        return attend(self._console, run, overrides, directory, num_rounds=config.federation.num_rounds, after=done)

    def _start(self) -> LocalSuperLink:
        if self._superlink is None:
            self._superlink = LocalSuperLink()
            self._superlink.start()
        return self._superlink
