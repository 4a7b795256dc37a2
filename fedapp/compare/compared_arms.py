"""Which arms a comparison has, as overrides of runs: sites alone, all data pooled, federated, and variants."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedapp.common.errors import ConfigError
from fedapp.config import Config, by_group, compose, split_overrides
from fedapp.server.build import cohort_rule

__all__ = ["ComparedArm", "arms_of", "base_overrides", "check_base", "check_choices", "rounds_alone", "variants"]

UNSEEN = "train.val_fraction=0"  # no run has the held-out rows, nor a validation split of its training rows
HELD_OUT = 0.3  # of each site's rows, unless train.val_fraction says so
# What a site alone, or whoever had all data, has no use for. Options of these groups lose their keys with them.
# Against what clients that differ do to one model: nothing for one client.
ONLY_FEDERATED = ("train.proximal_mu=", "train.logit_adjustment=")
PLAIN = (
    *("strategy=fedavg", "privacy=none", "secure_aggregation=none", "compression=none", "cohort=uniform"),
    *("downlink=whole", "federation/personal=none"),
)
KEYS = tuple(choice.partition("=")[0].replace("/", ".") for choice in PLAIN)
# Arms that stop when they like would differ in steps, and what chooses by held-out rows must not be judged on them.
CHOOSES = (
    ("federation.patience", None),
    ("federation.target_accuracy", None),
    ("federation.result", "last"),
    ("federation.max_seconds", None),
    ("train.max_seconds", None),
    ("run.resume", None),
    ("run.output_dir", None),
)


@dataclass(frozen=True)
class ComparedArm:
    """`owner` says whose training rows a run has: each site's own (`alone`), one run of them all together (`all`), or
    one of all sites as clients (`federated`)."""

    name: str
    owner: str
    overrides: tuple[str, ...]


def base_overrides(given: Sequence[str]) -> list[str]:
    """The overrides of the federated arm. Unless they say so, a larger share is held out than a run needs."""
    found = by_group(given)
    if any(item.startswith("train.val_fraction=") for item in found):
        return found
    held_out, default = compose(found).train.val_fraction, compose([]).train.val_fraction
    return found if held_out != default else [*found, f"train.val_fraction={HELD_OUT}"]


def check_choices(config: Config) -> None:
    """Raises ConfigError for what would choose by the rows that are judged on, or give arms unlike work."""
    for key, needed in CHOOSES:
        section, _, name = key.partition(".")
        if (found := getattr(getattr(config, section), name)) != needed:
            raise ConfigError(
                f"{key}={found}: all arms of a comparison take the same number of steps, and nothing may be chosen by"
                f" the rows that they are judged on; set {key}={'null' if needed is None else needed}"
            )
    if config.run.engine != compose([]).run.engine:
        raise ConfigError(f"run.engine={config.run.engine}: a comparison runs on the local engine; leave it out")


def check_base(config: Config) -> None:
    """Raises ConfigError for what cannot be compared fairly, or at all."""
    check_choices(config)
    if not config.train.val_fraction:
        raise ConfigError("train.val_fraction=0: leaves no rows to judge on; set it to 0.3, say")
    if config.federation.num_clients < 2:
        raise ConfigError("federation.num_clients=1: a comparison needs two sites or more")


def rounds_alone(config: Config) -> int:
    """Rounds in which a single client passes as often over its rows as a client of the federation does on average."""
    clients = config.federation.num_clients
    return max(1, math.floor(config.federation.num_rounds * cohort_rule(config).needed(clients) / clients + 0.5))


def variants(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """Of `--with` the overrides of each variant. Commas separate variants, but not inside brackets; spaces separate
    overrides of one."""
    found = []
    for text in texts:
        pieces = re.split(r",(?![^\[{(]*[\]})])", text)
        found += [tuple(by_group(split_overrides(piece))) for piece in pieces if piece.strip()]
    for variant in found:
        for item in variant:
            if "=" not in item:
                raise ConfigError(f"--with {item}: must be key=value, as for scripts/run.py")
    return found


def arms_of(base: Sequence[str], config: Config, extra: Sequence[tuple[str, ...]]) -> list[ComparedArm]:
    """Alone, pooled, federated, then the variants. Raises ConfigError for one that cannot be."""
    single = _plain(base, config)
    arms = [ComparedArm("alone", "alone", single), ComparedArm("pooled", "all", single)]
    arms.append(ComparedArm("federated", "federated", (*base, UNSEEN)))
    for variant in extra:
        name = " ".join(variant).replace("federation/personal=", "personal=")
        own = [item for item in base if item.partition("=")[0] not in {one.partition("=")[0] for one in variant}]
        if any(item.startswith("train.val_fraction=") for item in variant):
            raise ConfigError(f"--with {name}: train.val_fraction is {config.train.val_fraction} in all arms")
        arms.append(ComparedArm(name, "federated", (*own, *variant, UNSEEN)))
    if len({arm.name for arm in arms}) < len(arms):
        raise ConfigError(
            f"--with {[' '.join(one) for one in extra]}: a variant is there twice, or called as an arm is"
        )
    return arms


def _plain(base: Sequence[str], config: Config) -> tuple[str, ...]:
    """One client, without what only a federation has."""
    own = [item for item in base if not re.match(rf"[+~]*({'|'.join(map(re.escape, KEYS))})[./=]", _dotted(item))]
    own = [item for item in own if not item.startswith(ONLY_FEDERATED)]
    plain = [
        *(
            *own,
            *PLAIN,
            *(f"{start}0.0" for start in ONLY_FEDERATED),
            "federation.num_clients=1",
            "federation.min_clients=1",
        ),
        *("federation.fraction_train=1.0", "federation.over_selection=0.0"),
        *("federation.deliver=false", f"federation.num_rounds={rounds_alone(config)}", "run.num_supernodes=1", UNSEEN),
    ]
    made = compose(plain)
    # An experiment may have set keys of an option that is not chosen here.
    left = [f"privacy.{key}" for key in made.privacy if key != "_target_"]
    left += [f"secure_aggregation.{key}" for key in made.secure_aggregation if key != "_target_"]
    left += [f"compression.{key}" for key in made.compression if key != "_target_"]
    left += [f"downlink.{key}" for key in made.downlink if key != "_target_"]
    left += [f"cohort.{key}" for key in made.cohort if key != "_target_"]
    left += [f"federation.personal.{key}" for key in made.federation.personal if key != "_target_"]
    return (*plain, *(f"~{key}" for key in left))


def _dotted(item: str) -> str:
    key, equals, value = item.partition("=")
    return f"{key.replace('/', '.')}{equals}{value}"


def run_overrides(arm: ComparedArm, seed: int, directory: Path) -> tuple[list[str], Path]:
    """Of one run of an arm: its overrides, and its run directory below `directory`."""
    name = re.sub(r"[^A-Za-z0-9_.=-]+", "_", arm.name)
    made = [*arm.overrides, f"run.seed={seed}"]
    if not any(item.startswith("run.checkpoint_every=") for item in made):  # nobody resumes one of so many short runs
        made.append(f"run.checkpoint_every={compose(made).federation.num_rounds}")
    return made, directory / name / f"seed-{seed}"
