"""What was found in a simulation's data, at the terminal, before training; with --check nothing follows it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from fedapp.common.errors import FedappError
from fedapp.config import compose
from fedapp.launch.show import Finished, say_error

if TYPE_CHECKING:
    from fedapp.data.findings import Findings

__all__ = ["check_only", "show_findings"]


def show_findings(console: Console, findings: "Findings") -> None:
    for fact in findings.facts:
        console.print(fact, markup=False, highlight=False, soft_wrap=True)
    for warning in findings.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def check_only(console: Console, overrides: Sequence[str], directory: Path) -> Finished:
    """Check a simulation as before a run, and show what was found; nothing is started, and nothing left behind."""
    from fedapp.launch.check import absolute_paths, check
    from fedapp.server.build import output_directory

    found = directory
    try:
        config = compose(overrides)
        config = compose([*overrides, *absolute_paths(config)])
        found = output_directory(config, directory)
        config = replace(config, run=replace(config.run, output_dir=str(found)))  # as a run has it
        check(config, found, show=lambda findings: show_findings(console, findings))
        console.print("checked: the run can start", highlight=False)
        return Finished(overrides, found, {}, None)
    except FedappError as error:
        say_error(console, str(error))
        return Finished(overrides, found, {}, str(error))
    finally:
        for made in {directory, found}:
            with suppress(OSError):
                made.rmdir()
