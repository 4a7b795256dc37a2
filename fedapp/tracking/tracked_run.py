"""A run's record as a tracker has it: what of it goes there, and that a resumed run goes on where it was."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedapp.common.files import write_atomically
from fedapp.tracking.tracker import AboutRun, Store, Tracker

__all__ = ["IDENTITY", "TrackedRun"]

IDENTITY = "tracker.json"  # in the run directory
OF_PRIVATE_CLIENTS = ("epsilon", "delta")  # all that may leave of one client of a run with differential privacy
NOT_FIGURES = ("round", "client", "time")


class TrackedRun:
    """A listener of the record. The tracker's package is imported with the first round, while clients are at work.

    Which run of the tracker it is, and how many rounds that has, is in `tracker.json`: rounds that a resumed run does
    again are not told twice. The figures of the first time stand.
    """

    def __init__(self, tracker: Tracker, about: AboutRun) -> None:
        self._tracker, self._about = tracker, about
        self._kind = type(tracker).__name__
        self._file = about.directory / IDENTITY
        saved = self._saved()
        self._identity: str | None = saved.get("run")
        self._told = int(saved.get("rounds", -1))  # the last round that the tracker has
        self._store: Store | None = None

    def add_round(self, metrics: Mapping[str, Any]) -> None:
        step = int(metrics["round"])
        if step > self._told:
            self._opened().log(figures(metrics), step)
            self._told = step
            self._save()

    def add_clients(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if self._about.num_clients > self._tracker.sites:
            return
        found: dict[str, float] = {}
        for row in rows:
            if int(row["round"]) > self._told - (row.get("phase") == "final"):
                found |= self._of_client(row)
        if found:
            self._opened().log(found, int(rows[0]["round"]))

    def finish(self, summary: Mapping[str, Any]) -> None:
        files = self._files() if self._tracker.artifacts else []
        self._opened().finish(figures(summary), files, failed=summary.get("status") != "finished")
        self._store = None

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def _of_client(self, row: Mapping[str, Any]) -> dict[str, float]:
        if row.get("client") is None:
            return {}
        prefix = f"site/{row['client']}/{'final_' if row.get('phase') == 'final' else ''}"
        allowed = OF_PRIVATE_CLIENTS if self._about.private else tuple(row)
        return {f"{prefix}{name}": value for name, value in figures(row).items() if name in allowed}

    def _files(self) -> list[Path]:
        """Model, config and report. Of a run with differential privacy the report stays, which has a table of single
        clients and what they said."""
        directory, names = self._about.directory, ["model.safetensors", "best.safetensors", "config.yaml"]
        if not self._about.private:
            from fedapp.report.page import write_report  # matplotlib takes a second to import

            write_report(directory)
            names += ["summary.json", "report.html"]
        return [directory / name for name in names if (directory / name).exists()]

    def _opened(self) -> Store:
        if self._store is None:
            self._store = self._tracker.open(self._about, self._identity)
            self._identity = self._store.identity
            self._save()
        return self._store

    def _saved(self) -> Mapping[str, Any]:
        """Of this kind of tracker; of another one nothing can be gone on with."""
        if not self._file.exists():
            return {}
        found = json.loads(self._file.read_text(encoding="utf-8"))
        return found if found.get("tracker") == self._kind else {}

    def _save(self) -> None:
        content = {"tracker": self._kind, "run": self._identity, "rounds": self._told}
        write_atomically(self._file, (json.dumps(content) + "\n").encode())


def figures(values: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a line, by the names that they have there."""
    return {
        name: float(value)
        for name, value in values.items()
        if name not in NOT_FIGURES
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    }


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every value of a nested config under its dotted key."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        key = f"{prefix}{name}"
        found |= flat(value, f"{key}.") if isinstance(value, Mapping) and value else {key: value}
    return found
