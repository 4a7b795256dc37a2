"""`flwr run` as a child process: started, followed round by round, judged by Flower's own run status."""

import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from fedapp.errors import FederationError
from fedapp.launch.superlink import CONNECTION, LocalSuperLink

__all__ = ["FollowedRun", "RunStatus", "quoted"]

APP = Path(__file__).resolve().parents[2]
POLL = 0.1  # seconds
STARTED = re.compile(r"Successfully started run (\d+)")


def quoted(path: Path) -> str:
    """A path as Hydra's grammar takes it, whatever characters it has."""
    text = str(path)
    # Backslashes are literal there, except before a quote, the closing one included.
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text) + "'"


@dataclass(frozen=True)
class RunStatus:
    """Flower's verdict on a run, e.g. `finished:completed`, with the text of what went wrong."""

    status: str
    details: str

    @property
    def completed(self) -> bool:
        return self.status == "finished:completed"

    @property
    def words(self) -> str:
        """How the run ended, for a person."""
        return (
            f"{self.status.replace('finished:', '')}: {self.details.removeprefix('Simulation failed with exception: ')}"
        )


class FollowedRun:
    """One run on `superlink`. Its terminal output goes to `flwr.log` in the run directory."""

    def __init__(
        self, superlink: LocalSuperLink, directory: Path, overrides: Sequence[str], federation: Sequence[str]
    ) -> None:
        self._superlink, self._directory = superlink, directory
        line = shlex.join([*overrides, f"run.output_dir={quoted(directory)}"])
        self._command = ["flwr", "run", str(APP), CONNECTION, "--stream"]
        # A file, since Flower's own parser of key=value pairs knows no escaped quotes. TOML's strings are JSON's.
        run_config = superlink.home / f"{uuid4().hex}.toml"
        run_config.write_text(f"overrides = {json.dumps(line, ensure_ascii=False)}\n", encoding="utf-8")
        self._command += ["--run-config", str(run_config)]
        self._command += ["--federation-config", " ".join(federation)]
        self.log = directory / "flwr.log"
        self._log_start = 0

    def follow(self, on_round: Callable[[dict[str, Any]], None], *, after: int = -1) -> RunStatus:
        """Start the run, call `on_round` with each line of metrics.jsonl as it appears, and return the verdict.

        Rounds up to `after` are known already, in a run that is resumed.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        self._log_start = self.log.stat().st_size if self.log.exists() else 0  # what a resumed run printed before
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, env=self._superlink.environment, cwd=APP
            )
        try:
            while process.poll() is None:
                after = self._new_rounds(after, on_round)
                time.sleep(POLL)
            self._new_rounds(after, on_round)
        except BaseException:
            process.terminate()
            self._stop()
            process.wait()
            raise
        return self._status()

    def _new_rounds(self, after: int, on_round: Callable[[dict[str, Any]], None]) -> int:
        file = self._directory / "metrics.jsonl"
        if not file.exists():
            return after
        # What follows the last newline is still being written.
        for line in file.read_text(encoding="utf-8").split("\n")[:-1]:
            figures = json.loads(line)
            if figures["round"] > after:
                on_round(figures)
                after = figures["round"]
        return after

    def _run_id(self) -> str | None:
        found = STARTED.search(self._printed())
        return found[1] if found else None

    def _printed(self) -> str:
        return self.log.read_bytes()[self._log_start :].decode(errors="replace").strip()

    def _flwr(self, *arguments: str) -> str:
        command = ["flwr", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, env=self._superlink.environment, timeout=60, check=False
        ).stdout

    def _stop(self) -> None:
        if run_id := self._run_id():
            self._flwr("stop", run_id, CONNECTION)

    def _status(self) -> RunStatus:
        run_id = self._run_id()
        if run_id is None:
            raise FederationError(f"flwr run did not start:\n{self._printed()}")
        listing = self._flwr("ls", CONNECTION, "--run-id", run_id, "--format", "json")
        try:
            run = json.loads(listing)["runs"][0]
        except (ValueError, KeyError, IndexError):
            raise FederationError(f"flwr ls gave no status of run {run_id}: {listing.strip()}") from None
        return RunStatus(str(run["status"]), str(run.get("status-details", "")))
