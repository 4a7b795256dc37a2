"""Follow a run at a terminal: a progress bar, a summary at its end, and how to resume it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from fedapp.common.errors import FederationError
from fedapp.launch.follow import FollowedRun
from fedapp.launch.show import Finished, RoundBar, say_error, show_summary
from fedapp.server.run_directory.checkpoint import checkpoint_files

__all__ = ["attend"]


def attend(
    console: Console, run: FollowedRun, overrides: Sequence[str], directory: Path, *, num_rounds: int, after: int
) -> Finished:
    """Start `run`, whose results go to `directory`, and follow it to its end. A failed run is shown, not raised."""
    console.print(f"run directory  {directory}", soft_wrap=True, highlight=False)
    try:
        with RoundBar(console, num_rounds) as bar:
            status = run.follow(bar.update, after=after)
    except KeyboardInterrupt:
        console.print(f"stopped{_how_to_go_on(directory)}", style="bold red", soft_wrap=True, highlight=False)
        raise
    except FederationError as gone:  # the SuperLink has
        raise FederationError(f"{gone}{_how_to_go_on(directory)}") from None
    if (found := run.run_directory) is not None and found != str(directory):
        console.print(f"on the SuperLink's machine: {found}", soft_wrap=True, highlight=False)
        directory = Path(found)
    summary = _summary(directory)
    if summary:
        show_summary(console, summary, directory)
    if status.completed:
        return Finished(overrides, directory, summary, None)
    error = f"the run {status.words}\nIts output is in {run.log}{_how_to_go_on(directory)}"
    say_error(console, error)
    return Finished(overrides, directory, summary, error)


def _how_to_go_on(directory: Path) -> str:
    """A hint, where there is a checkpoint."""
    if not checkpoint_files(directory / "checkpoint"):
        return ""
    return f"\nTo go on with it, add run.resume={directory} to the same overrides"


def _summary(directory: Path) -> dict[str, Any]:
    file = directory / "summary.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}
