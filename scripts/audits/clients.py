"""Whole clients: was this client in the federation?"""

import argparse
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from audits.result import write_result
from fedapp.audit.client_unit import audit_clients

__all__ = ["attack_clients"]

CLIENTS = (
    *("privacy=client_dp", "model=logistic_regression", "partition=iid", "federation.num_clients=100"),
    *("federation.num_rounds=20", "federation.fraction_train=0.2", "privacy.population=200"),
)


def attack_clients(console: Console, options: argparse.Namespace, directory: Path) -> int:
    """Guess which canary clients took part, without noise and at each budget."""
    overrides = [*CLIENTS, *options.overrides]
    with console.status("") as status:
        audited = audit_clients(
            overrides,
            options.epsilon,
            canaries=options.candidates,
            worlds=options.attacked,
            confidence=options.confidence,
            tell=status.update,
        )
    table = Table("noise", "on", "AUC", "interval", "at most", "ε at least", "accounted ε", box=SIMPLE_HEAD)
    rows = []
    for arm in audited:
        accounted = "-" if arm.epsilon is None else f"{arm.epsilon:.2f}"
        for attack, area in arm.areas.items():
            interval, bound = f"{area.low:.3f}-{area.high:.3f}", arm.bounds[attack]
            figures = (f"{area.value:.3f}", interval, f"{arm.largest_area:.3f}", f"{bound:.2f}", accounted)
            table.add_row(arm.name, attack, *figures)
            rows.append(
                {"arm": arm.name, "epsilon": arm.epsilon, "delta": arm.delta, "attack": attack}
                | {"auc": area.value, "auc_interval": [area.low, area.high], "epsilon_lower_bound": bound}
            )
    content = {"overrides": overrides, "canaries": options.candidates, "worlds": options.attacked, "clients": rows}
    write_result(directory, content)
    console.print(table)
    for arm in audited:
        for attack in arm.refuted:
            console.print(f"{arm.name}: the attack on the {attack} proves more than is accounted", style="bold red")
    return int(any(arm.refuted for arm in audited))
