"""Single examples: was this one trained on, and what did it look like?"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fedapp.audit.arms import Setting
from fedapp.audit.attacks import ATTACKS
from fedapp.audit.audit import Audited, Size, audit, save

__all__ = ["attack_examples"]

FEW = 16


def attack_examples(console: Console, options: argparse.Namespace, directory: Path) -> int:
    """Guess which examples a client has trained on, and invert an update, without noise and at each budget."""
    overrides = tuple(options.overrides)
    settings = [Setting(overrides, options.candidates, epsilon) for epsilon in (None, *options.epsilon)]
    size = Size(
        shadows=options.shadows,
        attacked=options.attacked,
        jobs=options.jobs,
        batch_size=options.batch_size,
        confidence=options.confidence,
    )
    with console.status("") as status:
        audited = audit(settings, size, lambda text: status.update(text))
    directory.mkdir(parents=True, exist_ok=True)
    save(directory, audited, size, overrides)
    _draw(directory, audited)
    _show(console, audited, size)
    refuted = [(arm, found) for arm in audited for found in arm.refuted]
    for arm, found in refuted:
        console.print(
            f"{arm.name}: {found.attack} on the {found.target} proves ε >= {found.epsilon_bound:.2f}, more than the"
            f" {arm.epsilon:.2f} of the accountant",
            style="bold red",
            soft_wrap=True,
        )
    return int(bool(refuted))


def _show(console: Console, audited: Sequence[Audited], size: Size) -> None:
    confidence = size.confidence
    console.print(f"attacked: {audited[0].text}", highlight=False, soft_wrap=True)
    if min(size.shadows, size.attacked) < FEW:
        console.print(f"so few federations say little: of --shadows and --attacked {FEW} is the least that does")
    for arm in audited:
        title = f"\nMembership inference, {arm.name}"
        if arm.epsilon is not None:
            title += f" (accountant: {arm.epsilon:.2f} at δ = {arm.delta:g}; no AUC above {arm.largest_area:.3f})"
        console.print(title, style="bold", highlight=False, soft_wrap=True)
        table = Table(
            "on", "by", "AUC", f"{confidence:.0%} interval", "TPR@1%FPR", "ε at least", box=SIMPLE_HEAD, padding=(0, 1)
        )
        for found in arm.attacks:
            interval = f"{found.area.low:.3f}-{found.area.high:.3f}"
            hits = f"{found.true_positives:.1%}"
            row = (found.target, found.attack, f"{found.area.value:.3f}", interval, hits, f"{found.epsilon_bound:.2f}")
            table.add_row(*row)
        console.print(table)
    console.print(
        "\nGradient inversion of one update: how much of its examples was found", style="bold", soft_wrap=True
    )
    table = Table("privacy", "share of their variance", box=SIMPLE_HEAD, padding=(0, 1))
    for arm in audited:
        explained = arm.inversion.explained
        table.add_row(arm.name, f"{explained:.3f}" + ("" if explained > 0 else "  (worse than guessing the average)"))
    console.print(table)


def _draw(directory: Path, audited: Sequence[Audited]) -> None:
    from fedapp.report.audit_plots import epsilons, reconstructions, roc

    figures = {}
    for number, attack in enumerate(ATTACKS):
        name = "".join(letter if letter.isalnum() else "-" for letter in f"{attack.target}-{attack.name}".lower())
        curves = {arm.name: arm.attacks[number].curve for arm in audited}
        figures[f"roc-{name}"] = roc(f"{attack.name}, on the {attack.target}", curves)
    private = [arm for arm in audited if arm.epsilon is not None]
    if private:
        figures["epsilon"] = epsilons(
            {
                f"{attack.name} ({attack.target})": [
                    (arm.epsilon or 0.0, arm.attacks[i].epsilon_bound) for arm in private
                ]
                for i, attack in enumerate(ATTACKS)
            }
        )
    images = reconstructions(audited[0].inversion.truth, {arm.name: arm.inversion.found for arm in audited})
    if images is not None:
        figures["inversion"] = images
    for name, figure in figures.items():
        figure.savefig(directory / f"{name}.png", dpi=150)
