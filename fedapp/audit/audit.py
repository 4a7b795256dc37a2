"""The audit: every attack on every arm, what each proves, and files that show it."""

import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor

from fedapp.audit.arms import Arm, Setting, attack_batch, open_arm, play_worlds
from fedapp.audit.attacks import ATTACKS
from fedapp.audit.bounds import Area, area_under_curve, epsilon_bound, largest_area, rates
from fedapp.audit.inversion import Inversion
from fedapp.audit.worlds import Signals
from fedapp.common.errors import ConfigError

__all__ = ["Audited", "Found", "Size", "audit", "judge", "save"]

WORLDS_AT_ONCE = 4


@dataclass(frozen=True)
class Size:
    """How much is spent on the attacks: `shadows` worlds to learn from, `attacked` worlds to be judged on; processes;
    examples and steps of the gradient inversion; the confidence of all intervals and bounds."""

    shadows: int = 32
    attacked: int = 32
    jobs: int = 1
    batch_size: int = 4
    inversion_steps: int = 1000
    confidence: float = 0.95


@dataclass(frozen=True)
class Found:
    """What one attack has achieved. `curve`: false and true positive rates. `epsilon_bound`: at least this epsilon,
    with the audit's confidence."""

    target: str
    attack: str
    area: Area
    true_positives: float
    epsilon_bound: float
    curve: tuple[Tensor, Tensor] = field(repr=False)


@dataclass(frozen=True)
class Audited:
    """One arm: the accounted `epsilon` (None without DP) at `delta`, what was attacked (`text`), all attacks, and the
    inverted update."""

    name: str
    epsilon: float | None
    delta: float
    text: str
    attacks: tuple[Found, ...]
    inversion: Inversion

    @property
    def largest_area(self) -> float:
        """What the accounted epsilon lets the AUC of an attack be at most."""
        return 1.0 if self.epsilon is None else largest_area(self.epsilon, self.delta)

    @property
    def refuted(self) -> list[Found]:
        """The attacks that prove more epsilon than is accounted for."""
        return [found for found in self.attacks if self.epsilon is not None and found.epsilon_bound > self.epsilon]


def audit(settings: Sequence[Setting], size: Size, tell: Callable[[str], None] = lambda text: None) -> list[Audited]:
    """Attack every setting. `tell` hears of progress."""
    for setting in settings:  # what is wrong is said before the training
        tell(f"attacking {open_arm(setting).text}")
        if size.batch_size > setting.candidates:
            raise ConfigError(f"--batch-size {size.batch_size}: more than the {setting.candidates} --candidates")
    audited = []
    with ProcessPoolExecutor(
        size.jobs, mp_context=get_context("spawn"), initializer=logging.disable, initargs=(logging.INFO,)
    ) as pool:
        for setting in settings:
            signals = _play(setting, size, pool, tell)
            tell(f"{setting.name}: gradient inversion")
            inversion = attack_batch(setting, size.batch_size, size.inversion_steps)
            arm = open_arm(setting)
            found = judge(signals, arm, size)
            audited.append(Audited(setting.name, arm.epsilon, arm.delta, arm.text, found, inversion))
    return audited


def judge(signals: Signals, arm: Arm, size: Size) -> tuple[Found, ...]:
    """Every attack learns from the first worlds and is judged on the others. The bounds on epsilon hold together, with
    `size.confidence` for all attacks, since whoever reads them looks at the largest."""
    confidence = 1 - (1 - size.confidence) / len(ATTACKS)
    shadows = signals.worlds(0, size.shadows)
    attacked = signals.worlds(size.shadows, size.shadows + size.attacked)
    found = []
    for attack in ATTACKS:
        scores = attack.score(shadows, attacked)
        false, true = rates(scores, attacked.members)
        found.append(
            Found(
                target=attack.target,
                attack=attack.name,
                area=area_under_curve(scores, attacked.members, size.confidence, arm.game.seed),
                true_positives=float(true[(false <= 0.01).nonzero()[-1]]),
                epsilon_bound=epsilon_bound(scores, attacked.members, arm.delta, confidence),
                curve=(false, true),
            )
        )
    return tuple(found)


def _play(setting: Setting, size: Size, pool: Executor, tell: Callable[[str], None]) -> Signals:
    total = size.shadows + size.attacked
    chunks = [range(start, min(start + WORLDS_AT_ONCE, total)) for start in range(0, total, WORLDS_AT_ONCE)]
    parts: list[Signals] = []
    tell(f"{setting.name}: {total} federations")
    for part in pool.map(play_worlds, [setting] * len(chunks), chunks):
        parts.append(part)
        tell(f"{setting.name}: {sum(len(part.members) for part in parts)} of {total} federations")
    return Signals(**{name: torch.cat([vars(part)[name] for part in parts]) for name in vars(parts[0])})


def save(directory: Path, audited: Sequence[Audited], size: Size, overrides: Sequence[str]) -> None:
    """`audit.json` with every figure; the plots are `fedapp.report.audit_plots`."""
    content = {
        "overrides": list(overrides),
        "attacked": audited[0].text,
        "size": asdict(size),
        "arms": [
            {
                "name": arm.name,
                "epsilon": arm.epsilon,
                "delta": arm.delta,
                "largest_auc": arm.largest_area,
                "attacks": [
                    {
                        "target": found.target,
                        "attack": found.attack,
                        "auc": found.area.value,
                        "auc_interval": [found.area.low, found.area.high],
                        "tpr_at_fpr_0.01": found.true_positives,
                        "epsilon_lower_bound": found.epsilon_bound,
                    }
                    for found in arm.attacks
                ],
                "inversion_explained": arm.inversion.explained,
            }
            for arm in audited
        ],
    }
    (directory / "audit.json").write_text(json.dumps(content, indent=2) + "\n")
