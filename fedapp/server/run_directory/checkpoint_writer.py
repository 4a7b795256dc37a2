"""Checkpoints written while the next round's clients are at work, so that no round waits for the disk."""

from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

from fedapp.server.run_directory.checkpoint import Checkpoint, save_checkpoint

__all__ = ["CheckpointWriter"]


class CheckpointWriter:
    """Writes one checkpoint at a time into `directory`. Whoever uses it calls `finish` at the end.

    Killed in between, a run goes on from the checkpoint before.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[Path] | None = None

    def write(self, checkpoint: Checkpoint) -> None:
        """Begin to write `checkpoint`, once the one before is on the disk. Raises what went wrong with that one.

        What the server goes on to change in place is copied first.
        """
        self.finish()
        own = replace(checkpoint, optimizer=deepcopy(checkpoint.optimizer), values=deepcopy(checkpoint.values))
        self._pending = self._thread.submit(save_checkpoint, self._directory, own)

    def check(self) -> None:
        """Raise what went wrong with a checkpoint whose writing has ended, without waiting for one that goes on."""
        if self._pending is not None and self._pending.done():
            self.finish()

    def finish(self) -> None:
        """Wait until all is on the disk. Raises what went wrong."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
