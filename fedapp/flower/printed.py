"""What Flower's commands print, as far as fedapp reads it.

Needs, of flwr 1.41 and 1.42: `flwr run` prints "Successfully started run ID"; `flwr ls --format json` gives `status`
and `status-details`, the former "finished:completed" for a run that succeeded; flower-supernode prints why it cannot
connect. Without the first, any long number after the word "run" is taken for the ID. Without the last, the operator is
shown the SuperNode's own output.
"""

import json
import re
from collections.abc import Iterable

from fedapp.flower.names import warn_once

__all__ = ["COMPLETED", "NOT_ADMITTED", "connection_error", "failure", "run_status", "started_run"]

STARTED = re.compile(r"Successfully started run (\d+)")
LIKELY_STARTED = re.compile(r"\brun\b\D{0,40}(\d{15,20})\b", re.IGNORECASE)  # IDs are random 64-bit numbers
COMPLETED = "finished:completed"
FAILED_SIMULATION = "Simulation failed with exception: "
FAILED_CONNECTION, NOT_ADMITTED = "Failed to initialize the connection", "Failed to activate SuperNode"


def started_run(printed: str) -> str | None:
    """The ID of the run that `flwr run` has started; None where it has started none."""
    if found := STARTED.search(printed):
        return found[1]
    if found := LIKELY_STARTED.search(printed):
        warn_once('text "Successfully started run" of `flwr run`', f"the run's ID is taken to be {found[1]}")
        return found[1]
    return None


def run_status(listing: str) -> tuple[str, str]:
    """Status and details of the one run in the output of `flwr ls --run-id ID --format json`.

    Raises ValueError or LookupError for other output.
    """
    run = json.loads(listing)["runs"][0]
    return str(run["status"]), str(run.get("status-details", ""))


def failure(details: str) -> str:
    """A failed run's details without the words that Flower puts before the exception's text."""
    return details.removeprefix(FAILED_SIMULATION)


def connection_error(printed: Iterable[str]) -> str | None:
    """The reason that flower-supernode printed for not connecting; None where it printed none."""
    lines = list(printed)
    after = [lines[i + 1] for i, line in enumerate(lines[:-1]) if FAILED_CONNECTION in line]
    return after[-1] if after else None
