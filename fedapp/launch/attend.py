"""Follow a run at a terminal: a progress bar, a summary at its end, and how to resume it."""

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from fedapp.common.errors import FederationError
from fedapp.launch.follow import RunStatus
from fedapp.launch.show import Finished, RoundBar, say_error, show_summary
from fedapp.server.run_directory.checkpoint import checkpoint_files
from fedapp.server.run_directory.lock import is_held

__all__ = ["Attended", "attend"]

Follow = Callable[[Callable[[dict[str, Any]], None]], RunStatus]


class Attended(Protocol):
    """`log`: the file that has the run's output. `run_directory`: where its results are, on the server's machine; None
    where the server did not come to name it."""

    @property
    def log(self) -> Path: ...

    @property
    def run_directory(self) -> str | None: ...


def attend(
    console: Console,
    run: Attended,
    follow: Follow,
    overrides: Sequence[str],
    directory: Path,
    *,
    num_rounds: int,
    command: str = "",
) -> Finished:
    """Start `run` by `follow`, whose results go to `directory`, and follow it to its end. A failed run is shown, not
    raised. `command`: what takes `--resume <run directory>`."""
    console.print(f"run directory  {directory}", soft_wrap=True, highlight=False)
    try:
        with RoundBar(console, num_rounds) as bar:
            status = follow(bar.update)
    except KeyboardInterrupt:
        # What was stopped may hold its directory a moment longer.
        hint = _how_to_go_on(directory, command, stopped=True)
        console.print(f"stopped{hint}", style="bold red", soft_wrap=True, highlight=False)
        raise
    except FederationError as gone:  # the SuperLink has
        raise FederationError(f"{gone}{_how_to_go_on(directory, command)}") from None
    if (found := run.run_directory) is not None and found != str(directory):
        console.print(f"on the SuperLink's machine: {found}", soft_wrap=True, highlight=False)
        directory = Path(found)
    summary = _summary(directory)
    if summary:
        show_summary(console, summary, directory)
    if status.completed:
        return Finished(overrides, directory, summary, None)
    error = f"the run {status.words}\nIts output is in {run.log}{_how_to_go_on(directory, command)}"
    say_error(console, error)
    return Finished(overrides, directory, summary, error)


def _how_to_go_on(directory: Path, command: str, *, stopped: bool = False) -> str:
    """A hint, where there is a checkpoint. `stopped`: whoever holds the directory is the run that was stopped."""
    if not checkpoint_files(directory / "checkpoint") or (is_held(directory) and not stopped):  # another run's
        return ""
    if command:
        return f"\nTo go on with it: {command} --resume {shlex.quote(str(directory))}"
    return f"\nTo go on with it, add run.resume={directory} to the same overrides"


def _summary(directory: Path) -> dict[str, Any]:
    file = directory / "summary.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}
