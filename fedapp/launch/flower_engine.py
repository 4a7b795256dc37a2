"""Flower's own engine: `flwr run` on a SuperLink that all runs of a call share, with SuperNodes that are Ray's workers.

It imports little: the SuperLink takes as long to start as torch to be imported.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedapp.common.cores import allowed_cores
from fedapp.config import Config
from fedapp.launch.follow import FollowedRun, RunStatus
from fedapp.launch.local_superlink import LocalSuperLink

if TYPE_CHECKING:
    from fedapp.launch.check import Ready

__all__ = ["FlowerEngine", "federation_config"]


def federation_config(config: Config) -> list[str]:
    """Flower's simulation settings: SuperNodes, and a worker process with one core for as many as there are cores.

    On a Ray cluster (RAY_ADDRESS) the cluster has as many cores as it was started with, and a worker for each.
    """
    from fedapp.aggregation.protocol import protocol_of
    from fedapp.learning.training import resolve_device

    cluster = bool(os.environ.get("RAY_ADDRESS"))
    cores = allowed_cores()
    supernodes = (config.run.num_supernodes or cores) + protocol_of(config).helper_sites
    workers = min(supernodes, cores)
    # Ray hides the GPU from workers that did not ask for a share of it.
    on_gpu = resolve_device(config.run.device).type == "cuda"
    gpus = [f"client-resources-num-gpus={1 / workers:.4f}"] if on_gpu else []
    own = [] if cluster else [f"init-args-num-cpus={workers}"]  # Ray takes it for a cluster of its own only
    return [f"num-supernodes={supernodes}", "client-resources-num-cpus=1", *own, *gpus]


class FlowerEngine:
    """The SuperLink starts at once, and is waited for when a run needs it."""

    def __init__(self) -> None:
        self._superlink = LocalSuperLink()
        self._superlink.start()
        self.splits: Path | None = self._superlink.splits

    def prepare(self, config: Config, overrides: Sequence[str], directory: Path) -> "FlowerRun":
        return FlowerRun(self._superlink, directory, overrides, federation_config(config))

    def finish(self) -> list[str]:
        return []

    def end(self) -> None:
        self._superlink.stop()


class FlowerRun:
    """One run, as `attend` follows it."""

    about = "Flower's engine"

    def __init__(
        self, superlink: LocalSuperLink, directory: Path, overrides: Sequence[str], federation: Sequence[str]
    ) -> None:
        self._superlink, self._directory, self._overrides = superlink, directory, overrides
        self._federation = federation
        self.log = directory / "flwr.log"
        self.run_directory = str(directory)

    def follow(self, ready: "Ready", on_round: Callable[[dict[str, Any]], None]) -> RunStatus:
        self._superlink.wait_until_ready()
        run = FollowedRun(self._superlink.connection, self._directory, self._overrides, self._federation)
        return run.follow(on_round, after=ready.done)

    def end(self) -> None:
        """`follow` leaves nothing."""
