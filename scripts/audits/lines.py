"""Models of text: is a single line of a client remembered?"""

import argparse
from dataclasses import asdict
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from audits.result import write_result
from fedapp.audit.canaries import audit_canaries

__all__ = ["attack_lines"]


def attack_lines(console: Console, options: argparse.Namespace, directory: Path) -> int:
    """Look for canaries in models of text."""
    given = any(line.startswith(("experiment=", "data=")) for line in options.overrides)
    overrides = [*(() if given else ("experiment=keyboard_dp",)), *options.overrides]
    with console.status("") as status:
        audited = audit_canaries(
            overrides,
            options.epsilon,
            canaries=options.candidates,
            copies=options.copies,
            jobs=options.jobs,
            tell=status.update,
        )
    table = Table("privacy", "accounted ε", "copies", "exposure", "extracted", "test loss", box=SIMPLE_HEAD)
    for arm in audited:
        for number, found in arm.exposures.items():
            spent = "-" if arm.epsilon is None else f"{arm.epsilon:.2f}"
            loss = "-" if arm.test_loss is None else f"{arm.test_loss:.3f}"
            mean = f"{sum(found) / len(found):.2f} of {arm.largest:.2f}"
            table.add_row(arm.name, spent, str(number), mean, f"{arm.extracted[number]} of {len(found)}", loss)
    content = {"overrides": overrides, "arms": [asdict(arm) for arm in audited]}
    write_result(directory, content)
    console.print(table)
    return 0
