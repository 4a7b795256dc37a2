"""`flwr run` as a child process: started, followed round by round, judged by Flower's own run status."""

import json
import re
import shlex
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from fedapp.common.errors import FederationError
from fedapp.common.override_text import quoted
from fedapp.flower.printed import COMPLETED, failure, run_status, started_run
from fedapp.launch.bundle import stage_app
from fedapp.launch.local_superlink import CONNECTION, Connection

__all__ = ["FollowedRun", "RunStatus"]

POLL = 0.1  # seconds
# What the server prints of a round and at the end (server/rounds.py, server/run.py).
ROUND = re.compile(r"\bround (\d+)/\d+  (.*)")
WARNING = re.compile(r"\bround (\d+): warning: (.*)")
FIGURE = re.compile(r"\b((?:test|val)_\w+) (\S+)")
RUN_DIRECTORY = re.compile(r"\brun directory: (/.*)")


@dataclass(frozen=True)
class RunStatus:
    """Flower's verdict on a run, e.g. `finished:completed`, with the text of what went wrong."""

    status: str
    details: str

    @classmethod
    def done(cls) -> "RunStatus":
        return cls(COMPLETED, "")

    @property
    def completed(self) -> bool:
        return self.status == COMPLETED

    @property
    def words(self) -> str:
        """How the run ended, for a person."""
        return f"{self.status.replace('finished:', '')}: {failure(self.details)}"


class FollowedRun:
    """One run on the SuperLink of `connection`. Its terminal output goes to `flwr.log` in `directory`.

    `here`: whether `directory` is the run directory, which server and terminal then share. If not, the run directory is
    on the server's machine, and what is known of it is what the server prints.
    """

    def __init__(
        self,
        connection: Connection,
        directory: Path,
        overrides: Sequence[str],
        federation: Sequence[str] = (),
        *,
        here: bool = True,
    ) -> None:
        self._connection, self._directory, self._here = connection, directory, here
        line = shlex.join([*overrides, *([f"run.output_dir={quoted(directory)}"] if here else [])])
        self._own = connection.home / uuid4().hex  # what `flwr run` reads
        self._own.mkdir()
        self._command = ["flwr", "run", str(stage_app(self._own / "app")), CONNECTION, "--stream"]
        # A file, since Flower's own parser of key=value pairs knows no escaped quotes. TOML's strings are JSON's.
        run_config = self._own / "run.toml"
        run_config.write_text(f"overrides = {json.dumps(line, ensure_ascii=False)}\n", encoding="utf-8")
        self._command += ["--run-config", str(run_config)]
        self._command += ["--federation-config", " ".join(federation)] if federation else []
        self.log = directory / "flwr.log"
        self._log_start = 0

    def follow(self, on_round: Callable[[dict[str, Any]], None], *, after: int = -1) -> RunStatus:
        """Start the run, call `on_round` with the figures of each round as they appear, and return the verdict.

        Rounds up to `after` are known already, in a run that is resumed.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        self._log_start = self.log.stat().st_size if self.log.exists() else 0  # what a resumed run printed before
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, env=self._connection.environment, cwd=self._own
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
        finally:
            shutil.rmtree(self._own, ignore_errors=True)
        return self._status()

    @property
    def run_directory(self) -> str | None:
        """The run directory, on the server's machine; None where the server did not come to name it."""
        if self._here:
            return str(self._directory)
        found = RUN_DIRECTORY.findall(self._printed())
        return found[-1].strip() if found else None

    def _new_rounds(self, after: int, on_round: Callable[[dict[str, Any]], None]) -> int:
        for figures in self._rounds():
            if figures["round"] > after:
                on_round(figures)
                after = figures["round"]
        return after

    def _rounds(self) -> Iterator[dict[str, Any]]:
        """The figures of all rounds that are over: from metrics.jsonl, or else from what the server printed."""
        file = self._directory / "metrics.jsonl"
        if not self._here:
            printed = self._printed()
            said: dict[str, dict[str, str]] = defaultdict(dict)
            for number, text in WARNING.findall(printed):
                said[number][text] = text
            for number, figures in ROUND.findall(printed):
                found = {name: float(value) for name, value in FIGURE.findall(figures)}
                yield {"round": int(number), **found, "warnings": said[number]}
        elif file.exists():
            # What follows the last newline is still being written.
            for line in file.read_text(encoding="utf-8").split("\n")[:-1]:
                yield dict(json.loads(line))

    def _run_id(self) -> str | None:
        return started_run(self._printed())

    def _printed(self) -> str:
        return self.log.read_bytes()[self._log_start :].decode(errors="replace").strip()

    def _flwr(self, *arguments: str) -> str:
        command = ["flwr", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, env=self._connection.environment, timeout=60, check=False
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
            return RunStatus(*run_status(listing))
        except (ValueError, LookupError):
            said = " ".join(listing.split())
            raise FederationError(f"the SuperLink tells no status of run {run_id}; was it ended? {said}") from None
