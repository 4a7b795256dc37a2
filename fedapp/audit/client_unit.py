"""Attack whole clients: canary clients are in the registry or not, each by a coin of its own, and attackers who see
every released model guess which. What their success proves is a lower bound on epsilon, beside the accounted one.

A canary sends the same update whenever it is asked: a direction of its own, longer than the clipping norm, which is
what a client can do at worst (Andrew et al. 2023, "One-shot Empirical Privacy Estimation for Federated Learning").
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedapp.audit.bounds import Area, area_under_curve, epsilon_bound, largest_area
from fedapp.audit.client_runs import ClientRun
from fedapp.common.errors import ConfigError
from fedapp.common.seeding import generator
from fedapp.config import compose
from fedapp.learning.build import build_parts
from fedapp.learning.build_shards import build_shards
from fedapp.privacy.accounting import epsilon
from fedapp.privacy.client_level.central import CentralClientDp

__all__ = ["ATTACKS", "AuditedClients", "audit_clients"]

LOUD = 10.0  # times the clipping norm
ATTACKS = ("final model", "every released model")


@dataclass(frozen=True)
class AuditedClients:
    """One arm: the accounted `epsilon` at `delta` (None without noise); and by attack its AUC, and the epsilon that it
    proves."""

    name: str
    epsilon: float | None
    delta: float
    areas: dict[str, Area]
    bounds: dict[str, float]

    @property
    def largest_area(self) -> float:
        return 1.0 if self.epsilon is None else largest_area(self.epsilon, self.delta)

    @property
    def refuted(self) -> list[str]:
        """The attacks that prove more epsilon than is accounted for."""
        return [name for name, bound in self.bounds.items() if self.epsilon is not None and bound > self.epsilon]


def audit_clients(
    overrides: Sequence[str],
    budgets: Sequence[float],
    *,
    canaries: int,
    worlds: int,
    confidence: float,
    tell: Callable[[str], None] = lambda text: None,
) -> list[AuditedClients]:
    """Without noise, and at each of `budgets`. Raises ConfigError for a run that is none of client-level DP."""
    found = []
    for budget in (None, *budgets):
        noise = ["privacy.target_epsilon=null", "privacy.noise_multiplier=0"]
        own = noise if budget is None else [f"privacy.target_epsilon={budget}"]
        name = "without noise" if budget is None else f"ε = {budget:g}"
        found.append(_arm(name, [*overrides, *own], canaries, worlds, confidence, tell))
    return found


def _arm(
    name: str, overrides: Sequence[str], canaries: int, worlds: int, confidence: float, tell: Callable[[str], None]
) -> AuditedClients:
    config = compose(overrides)
    parts = build_parts(config)
    run = ClientRun(config, parts, build_shards(config, parts, None))
    _check(run)
    size = sum(value.numel() for value in run.template.values())
    norm = run.privacy.keys.clipping_norm
    directions = torch.randn(canaries, size, generator=generator(config.run.seed, "canaries"))
    directions = directions / directions.norm(dim=1, keepdim=True)
    scores: dict[str, list[Tensor]] = {attack: [] for attack in ATTACKS}
    members = []
    for world in range(worlds):
        tell(f"{name}: {world} of {worlds} federations")
        member = torch.rand(canaries, generator=generator(config.run.seed, "membership", world)) < 0.5
        models = torch.stack(list(run.released(directions * norm * LOUD, member))).double()
        aligned = models.diff(dim=0) @ directions.double().T  # (rounds, canaries)
        scores["final model"].append(aligned.sum(0))
        scores["every released model"].append(_likelihood(aligned, run))
        members.append(member)
    truth, spent = torch.stack(members), _accounted(run)
    stacked = {attack: torch.stack(values) for attack, values in scores.items()}
    delta = run.privacy.keys.delta_of(config)
    each = 1 - (1 - confidence) / len(ATTACKS)  # whoever reads them looks at the largest
    areas = {a: area_under_curve(value, truth, confidence, config.run.seed) for a, value in stacked.items()}
    bounds = {attack: epsilon_bound(value, truth, delta, each) for attack, value in stacked.items()}
    return AuditedClients(name, spent, delta, areas, bounds)


def _likelihood(aligned: Tensor, run: ClientRun) -> Tensor:
    """The log-likelihood ratio of each canary (canaries,), from how far each round's mean points its way (rounds,
    canaries): it was in a round with probability `rate`, and then moved the mean by `shift`, beside noise and the
    honest clients' updates."""
    keys, config = run.privacy.keys, run.config
    rate = config.federation.fraction_train
    shift = keys.clipping_norm / (rate * keys.population_of(config))
    spread = max(float(aligned.std()), 1e-3 * shift)
    ratio = (aligned * shift - shift**2 / 2) / spread**2
    if rate == 1:
        return ratio.sum(0)
    likely = torch.full_like(ratio, math.log(1 - rate))
    return torch.logaddexp(likely, math.log(rate) + ratio).sum(0)


def _accounted(run: ClientRun) -> float | None:
    """Of the whole run; None without noise."""
    config, rounds = run.config, run.config.federation.num_rounds
    if isinstance(run.privacy, CentralClientDp):
        budget = run.privacy.budget(config)
    else:
        budget = run.privacy.server_accounts(config, run.parts, {}).budget
        rounds = min(rounds, budget.most_rounds or rounds)
    if not budget.cost.noise_multiplier:
        return None
    return epsilon([budget.cost] * rounds, budget.delta_of(1), budget.accountant)


def _check(run: ClientRun) -> None:
    """Raises ConfigError where the released models' differences are not the rounds' means."""
    optimizer = run.config.strategy.server_optimizer
    if optimizer["_target_"] != "torch.optim.SGD" or optimizer.get("momentum") or optimizer.get("lr") != 1.0:
        raise ConfigError(
            "strategy.server_optimizer: an audit of clients reads each round's mean off the released models; use"
            " strategy=fedavg"
        )
    if run.privacy.keys.quantile is not None:
        raise ConfigError("privacy.quantile: canaries of an audit are as long as a fixed clipping norm; set it to null")
