#!/usr/bin/env python3
"""Attack a federation, without differential privacy and at several ε: does the noise protect as the ledger says?

    python scripts/audit.py                                            experiment=audit, some minutes on two cores
    python scripts/audit.py federation.num_rounds=20 --epsilon 8,1     the same, but for this
    python scripts/audit.py model=cnn privacy.sample_rate=0.2 --candidates 200 --shadows 64 --attacked 64

Membership inference (was this example trained on?) is tried on the updates of one client and on the final model, and
gradient inversion (what did it look like?) on one update of a small batch. Overrides are those of scripts/run.py, of
data, model, task, optimizer, train, privacy, federation.num_clients and federation.num_rounds; without an experiment,
data, model or task among them they change experiment=audit. All clients take part in every round with the same
weight, and every client is given its share of the data anew.

With --unit client, whole clients are attacked instead, under privacy=client_dp: canary clients are in a federation or
not, by a coin, and guessed from its released models. --candidates is their number, --attacked that of federations.

    python scripts/audit.py --unit client
    python scripts/audit.py --unit client secure_aggregation=secaggplus --epsilon 8 --candidates 40 --attacked 8

With --canaries, models of text are searched for lines of random words that some clients have among theirs, once or
more often: their exposure and extraction, without and with DP-SGD (experiment=keyboard_dp unless data is given).

    python scripts/audit.py --canaries
    python scripts/audit.py --canaries federation.num_rounds=10 --epsilon 8 --candidates 5 --copies 1,10

For task=vertical it attacks the labels, as a party without them sees gradients and embeddings: without protection and
with each option of vertical.label_privacy; and the embeddings of single parties, as the label party finds them in what
it is sent, without masks and out of masked sums. The result is in audit.json.

    python scripts/audit.py task=vertical federation.num_rounds=5
    python scripts/audit.py experiment=flights_vertical federation.num_rounds=2

The exit status is 1 if an attack proves a larger ε than the accountant says, 2 if it could not be made. The last line
printed is `audit_dir=<absolute path>`: audit.json, roc-*.png, epsilon.png, inversion.png.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whatever else is installed

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fedapp.audit.arms import Setting
from fedapp.audit.attacks import ATTACKS
from fedapp.audit.audit import Audited, Size, audit, save
from fedapp.audit.canaries import audit_canaries
from fedapp.audit.client_unit import audit_clients
from fedapp.audit.embedding_attack import audit_embeddings
from fedapp.audit.label_attacks import audit_labels
from fedapp.common.errors import FedappError
from fedapp.config import by_group, compose
from fedapp.vertical.vertical_options import vertical_options

FEW = 16
CLIENTS = (
    *("privacy=client_dp", "model=logistic_regression", "partition=iid", "federation.num_clients=100"),
    *("federation.num_rounds=20", "federation.fraction_train=0.2", "privacy.population=200"),
)
PROTECTIONS = (
    "vertical/label_privacy=none",
    "vertical/label_privacy=noise",
    "vertical/label_privacy=noise vertical.label_privacy.scale=1",
    "vertical/label_privacy=label_dp",
    "vertical/label_privacy=label_dp vertical.label_privacy.epsilon=3",
)
FUSIONS = ("vertical/fusion=concat", "vertical/fusion=sum vertical.fusion.masked=true")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for scripts/run.py [experiment=audit]")
    parser.add_argument("--unit", choices=("example", "client"), default="example", help="what is attacked [example]")
    parser.add_argument("--canaries", action="store_true", help="look for single lines in a model of text")
    parser.add_argument("--copies", type=copies, default=(1, 4, 16), help="of a canary at its client [1,4,16]")
    parser.add_argument("--epsilon", type=epsilons, default=(8.0, 3.0, 1.0), help="budgets, e.g. 8,1 [8,3,1]")
    parser.add_argument(
        "--candidates", type=count(1), help="examples whose membership is guessed [100]; canaries of each kind [10]"
    )
    parser.add_argument(
        "--shadows", type=count(2), default=32, help="federations the attacker trains to learn from [32]"
    )
    parser.add_argument("--attacked", type=count(2), default=32, help="federations that are attacked [32]")
    parser.add_argument("--batch-size", type=count(1), default=4, help="examples in the update that is inverted [4]")
    parser.add_argument("--confidence", type=share, default=0.95, help="of every interval and bound [0.95]")
    parser.add_argument("--jobs", type=count(1), default=os.cpu_count() or 1, help="processes [one per core]")
    parser.add_argument("--output", type=Path, help="a new or empty directory [outputs/<date>/audit-<time>]")
    options = parser.parse_intermixed_args(arguments)
    if options.candidates is None:
        options.candidates = 10 if options.canaries else 100
    elif options.candidates < 20 and not options.canaries:
        parser.error("argument --candidates: must be a whole number of at least 20")
    return options


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def count(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if (found := number(text)) != int(found) or found < least:
            raise argparse.ArgumentTypeError(f"{text}: must be a whole number of at least {least}")
        return int(found)

    return read


def copies(text: str) -> tuple[int, ...]:
    return tuple(count(1)(part) for part in text.split(","))


def epsilons(text: str) -> tuple[float, ...]:
    found = tuple(number(part) for part in text.split(",") if part)
    if not all(0 < epsilon < float("inf") for epsilon in found):
        raise argparse.ArgumentTypeError(f"{text}: must be numbers greater than 0, with commas between")
    return found


def share(text: str) -> float:
    if not 0.5 <= (found := number(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 0.5 and below 1")
    return found


def by_columns(overrides: Sequence[str]) -> bool:
    """Whether the task is one of parties. Other overrides may be for an arm of the audit alone."""
    chosen = [item for item in by_group(overrides) if item.partition("=")[0] in ("task", "experiment")]
    return compose(chosen).task.by_columns


def show(console: Console, audited: Sequence[Audited], size: Size) -> None:
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
        found = arm.inversion.explained
        table.add_row(arm.name, f"{found:.3f}" + ("" if found > 0 else "  (worse than guessing the average)"))
    console.print(table)


def audit_parties(console: Console, overrides: Sequence[str], directory: Path) -> int:
    """Attack the labels of a vertical run, under each option that protects them, and single parties' embeddings."""
    if directory.exists() and any(directory.iterdir()):
        raise FedappError(f"--output {directory}: is not empty")
    table = Table("label privacy", "norm", "direction", "completion", "held out", box=SIMPLE_HEAD, padding=(0, 1))
    rows = []
    for name in PROTECTIONS:
        shown = name.partition("=")[2].replace("vertical.label_privacy.", "")
        found = audit_labels(compose([*overrides, *name.split()]), shown)
        rows.append(asdict(found))
        figures = (found.norm, found.direction, found.completion)
        held_out = ", ".join(f"{metric} {value:.4f}" for metric, value in found.metrics.items())
        table.add_row(found.name, *(f"{figure:.3f}" for figure in figures), held_out)
    fused = Table("fusion", "party", "times each", "share found", "held out", box=SIMPLE_HEAD, padding=(0, 1))
    embeddings = []
    masks = len(vertical_options(compose([*overrides, FUSIONS[0]])).names) > 2  # a mask needs two parties
    for name in FUSIONS if masks else FUSIONS[:1]:
        audited = audit_embeddings(compose([*overrides, *name.split()]), name.partition("=")[2].partition(" ")[0])
        embeddings.append(asdict(audited))
        held_out = ", ".join(f"{metric} {value:.4f}" for metric, value in audited.metrics.items())
        for party, share in audited.found.items():
            fused.add_row(audited.name, party, f"{audited.repeated[party]:.1f}", f"{share:.3f}", held_out)
    directory.mkdir(parents=True, exist_ok=True)
    found_all = {"overrides": list(overrides), "labels": rows, "embeddings": embeddings}
    (directory / "audit.json").write_text(json.dumps(found_all, indent=2) + "\n")
    console.print("AUC of attacks on training labels (0.5: nothing is learnt), and the model's metrics", soft_wrap=True)
    console.print(table)
    console.print(
        "Share of the variance of single embeddings that the label party finds (1: all but for a constant), and how"
        " often each entity occurs",
        soft_wrap=True,
    )
    console.print(fused)
    print(f"audit_dir={directory}", flush=True)
    return 0


def audit_whole_clients(console: Console, options: argparse.Namespace, directory: Path) -> int:
    """Guess which canary clients took part, without noise and at each budget."""
    if directory.exists() and any(directory.iterdir()):
        raise FedappError(f"--output {directory}: is not empty")
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
    directory.mkdir(parents=True, exist_ok=True)
    content = {"overrides": overrides, "canaries": options.candidates, "worlds": options.attacked, "clients": rows}
    (directory / "audit.json").write_text(json.dumps(content, indent=2) + "\n")
    console.print(table)
    for arm in audited:
        for attack in arm.refuted:
            console.print(f"{arm.name}: the attack on the {attack} proves more than is accounted", style="bold red")
    print(f"audit_dir={directory}", flush=True)
    return int(any(arm.refuted for arm in audited))


def audit_text(console: Console, options: argparse.Namespace, directory: Path) -> int:
    """Look for canaries in models of text."""
    if directory.exists() and any(directory.iterdir()):
        raise FedappError(f"--output {directory}: is not empty")
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
    directory.mkdir(parents=True, exist_ok=True)
    content = {"overrides": overrides, "arms": [asdict(arm) for arm in audited]}
    (directory / "audit.json").write_text(json.dumps(content, indent=2) + "\n")
    console.print(table)
    print(f"audit_dir={directory}", flush=True)
    return 0


def draw(directory: Path, audited: Sequence[Audited]) -> None:
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


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    console = Console()
    logging.disable(logging.INFO)
    now = datetime.now()
    directory = (options.output or Path("outputs", f"{now:%Y-%m-%d}", f"audit-{now:%H-%M-%S-%f}")).resolve()
    overrides = tuple(options.overrides)
    if options.canaries:
        try:
            return audit_text(console, options, directory)
        except FedappError as error:
            console.print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
            return 2
    if options.unit == "client":
        try:
            return audit_whole_clients(console, options, directory)
        except FedappError as error:
            console.print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
            return 2
    if not any(line.startswith(("experiment=", "data=", "model=", "task=")) for line in overrides):
        overrides = ("experiment=audit", *overrides)
    try:
        if by_columns(overrides):
            return audit_parties(console, overrides, directory)
    except FedappError as error:
        console.print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        return 2
    settings = [Setting(overrides, options.candidates, epsilon) for epsilon in (None, *options.epsilon)]
    size = Size(
        shadows=options.shadows,
        attacked=options.attacked,
        jobs=options.jobs,
        batch_size=options.batch_size,
        confidence=options.confidence,
    )
    try:
        if directory.exists() and any(directory.iterdir()):
            raise FedappError(f"--output {directory}: is not empty")
        with console.status("") as status:
            audited = audit(settings, size, lambda text: status.update(text))
    except FedappError as error:
        console.print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("stopped", style="bold red")
        return 130
    except Exception:  # 1 would say that an epsilon is refuted
        console.print_exception()
        return 2
    directory.mkdir(parents=True, exist_ok=True)
    save(directory, audited, size, overrides)
    draw(directory, audited)
    show(console, audited, size)
    refuted = [(arm, found) for arm in audited for found in arm.refuted]
    for arm, found in refuted:
        console.print(
            f"{arm.name}: {found.attack} on the {found.target} proves ε >= {found.epsilon_bound:.2f}, more than the"
            f" {arm.epsilon:.2f} of the accountant",
            style="bold red",
            soft_wrap=True,
        )
    print(f"audit_dir={directory}", flush=True)
    return int(bool(refuted))


if __name__ == "__main__":
    sys.exit(main())
