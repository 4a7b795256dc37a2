"""What a device's folder holds of runs: results and heads. Runs are named by servers, and a name may be invented."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from fedapp.common.errors import ConfigError

__all__ = ["RUNS_KEPT", "RunFolders"]

RUNS_KEPT = 4  # of how many runs a device has heads, and results


@dataclass(frozen=True)
class RunFolders:
    """Folders `kind`/RUN in `path`, where `kind` is models, heads, steps or received, and a mark trained/RUN for each
    run in which this device has trained. They fill `max_bytes` at most.

    Only a training costs a server anything, so runs without one make room for others, but never the other way round.
    """

    path: Path
    max_bytes: int | None = None

    def note_training(self, run: str) -> None:
        mark = self.path / "trained" / run
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch(mode=0o600)

    def has_trained(self, run: str) -> bool:
        return (self.path / "trained" / run).exists()

    def check(self, needed: int) -> None:
        """Raises ConfigError for a run that would store more than the operator allows."""
        if self.max_bytes is not None and needed > self.max_bytes:
            raise ConfigError(
                "federation.deliver, federation.personal, compression, downlink, run.checkpoint_every: this run would"
                f" store {-(-needed >> 20)} MB, and this SuperNode's operator allows less (node-config max-disk-mb)"
            )

    def make_room(self, kind: str, run: str, needed: int) -> Path:
        """The folder of `run`, into which it will have stored `needed` bytes in all. Those of other runs go: first of
        runs in which nothing was trained, then the oldest. Raises ConfigError where that gives no room."""
        target = self.path / kind / run
        trained = self.has_trained(run)
        others = sorted(self._others(run), key=lambda path: (self.has_trained(path.name), path.stat().st_mtime_ns))
        mine = [path for path in others if path.parent.name == kind]
        surplus = set(mine[: max(0, len(mine) - RUNS_KEPT + 1)])
        for path in others:
            if (path in surplus or self._is_full(target, needed)) and (trained or not self.has_trained(path.name)):
                shutil.rmtree(path, ignore_errors=True)
        if self._is_full(target, needed):
            raise ConfigError("node-config max-disk-mb: leaves no room for what this run stores")
        self._forget_marks(run)
        return target

    def _is_full(self, target: Path, needed: int) -> bool:
        """Whether `needed` bytes in `target`, beside all other folders, are more than the operator allows."""
        beside = (path for path in self._folders() if path != target)
        return self.max_bytes is not None and needed + sum(map(_size, beside)) > self.max_bytes

    def _others(self, run: str) -> list[Path]:
        return [path for path in self._folders() if path.name != run]

    def _folders(self) -> list[Path]:
        found = (path for kind in ("models", "heads", "steps", "received") for path in (self.path / kind).glob("*"))
        return [path for path in found if path.is_dir() and not path.is_symlink()]

    def _forget_marks(self, run: str) -> None:
        """Of runs of which nothing is stored; the newest stay, as a run may have trained and stored nothing yet."""
        kept = {path.name for path in self._others(run)} | {run}
        idle = [mark for mark in (self.path / "trained").glob("*") if mark.name not in kept]
        idle.sort(key=lambda mark: mark.stat().st_mtime_ns, reverse=True)
        for mark in idle[16 * RUNS_KEPT :]:
            mark.unlink(missing_ok=True)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
