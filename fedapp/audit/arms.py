"""From config to attacked federations: one arm without privacy, one for each epsilon."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from fedapp.audit.inversion import Inversion, invert, one_update
from fedapp.audit.worlds import Game, Signals, play
from fedapp.common.errors import ConfigError
from fedapp.common.seeding import generator
from fedapp.config import compose
from fedapp.data.features import features_of
from fedapp.data.source import Examples
from fedapp.learning.build import build_parts, build_training
from fedapp.privacy.accounting import epsilon
from fedapp.privacy.dp_sgd import DpSgd
from fedapp.privacy.dp_training import PrivateTraining
from fedapp.privacy.limits import OwnLimits
from fedapp.privacy.option import privacy_of

__all__ = ["Arm", "Setting", "attack_batch", "open_arm", "play_worlds"]

# What of the config an audit goes by; the rest would have no effect.
USED = ("experiment", "task", "data", "model", "optimizer", "train", "privacy.", "run.seed")
FROM_EPSILON = tuple(
    f"privacy.{name}" for name in ("target_epsilon", "noise_multiplier", "planned_rounds", "noise_source")
)
USED_OF_FEDERATION = ("federation.num_clients", "federation.num_rounds")


@dataclass(frozen=True)
class Setting:
    """What is attacked: the federation of `overrides` with privacy=none, or where `target_epsilon` is given with
    privacy=dp_sgd; `candidates` examples, half of which the attacked client has, as many as every other client."""

    overrides: tuple[str, ...]
    candidates: int
    target_epsilon: float | None = None

    @property
    def name(self) -> str:
        return "without DP" if self.target_epsilon is None else f"ε = {self.target_epsilon:g}"


@dataclass(frozen=True)
class Arm:
    """A setting made: the game, all examples of the data set, and what the rounds cost by the accountant (None without
    DP) at `delta`. `text` says what is attacked."""

    game: Game
    public: Examples
    epsilon: float | None
    delta: float
    text: str


@lru_cache(maxsize=2)
def open_arm(setting: Setting) -> Arm:
    """Raises ConfigError for what cannot be attacked or made private."""
    torch.set_num_threads(1)
    check_used(setting)
    private = [line for line in setting.overrides if line.startswith("privacy.")]
    overrides = [line for line in setting.overrides if line not in private]
    if setting.target_epsilon is None:
        overrides += ["privacy=none"]
    else:
        overrides += ["privacy=dp_sgd", *private, f"privacy.target_epsilon={setting.target_epsilon}"]
    config = compose([*overrides, "federation.fraction_train=1.0", "run.device=cpu"])
    if setting.target_epsilon is None:  # an experiment may set keys of privacy=dp_sgd
        config = replace(config, privacy={"_target_": config.privacy["_target_"]})
    parts = build_parts(config)
    if parts.task.schema.vocabulary:
        raise ConfigError("data: its inputs are tokens, and an audit reconstructs inputs that are numbers")
    if config.train.logit_adjustment:
        raise ConfigError("train.logit_adjustment: the attacks of an audit do not reckon with it; set it to 0")
    for agreement in parts.task.agreements:
        raise ConfigError(f"{agreement.setting}: nothing is agreed in an audit; use {agreement.remedy}")
    data = parts.source.pooled().train
    if parts.frozen is not None:
        data = features_of(parts.frozen, data)
    needed = setting.candidates + (config.federation.num_clients - 1) * (setting.candidates // 2)
    if len(data) < needed:
        raise ConfigError(
            f"{len(data)} examples are too few for {setting.candidates} candidates and"
            f" {config.federation.num_clients - 1} other clients of half as many: ask for fewer --candidates"
        )
    data = data.take(torch.randperm(len(data), generator=generator(config.run.seed, "audit")))
    half = setting.candidates // 2
    starts = range(setting.candidates, needed, half) if half else ()
    spent, delta = None, 1e-5
    if setting.target_epsilon is not None:
        privacy = privacy_of(config)
        assert isinstance(privacy, DpSgd)
        plan = privacy.plan(config, parts, OwnLimits())
        budget, training = plan.budget, plan.training
        delta = budget.delta_of(half)
        spent = epsilon([budget.cost] * config.federation.num_rounds, delta, budget.accountant)
    game = Game(
        task=parts.task,
        model=parts.model,
        training=build_training(config, parts) if spent is None else training,
        candidates=data.span(0, setting.candidates),
        others=[data.span(start, start + half) for start in starts],
        num_rounds=config.federation.num_rounds,
        seed=config.run.seed,
    )
    names = [str(section.get("_target_")).rpartition(".")[2] for section in (config.model, config.data)]
    size = f"{sum(parameter.numel() for parameter in parts.model.parameters()):,} parameters"
    federation = f"{config.federation.num_clients} clients, {config.federation.num_rounds} rounds"
    return Arm(game, data, spent, delta, f"{names[0]} ({size}) on {names[1]}, {federation}")


def check_used(setting: Setting) -> None:
    """Raises ConfigError for an override that an audit would not go by."""
    for line in setting.overrides:
        key = line.lstrip("+~").partition("=")[0]
        if key in FROM_EPSILON:
            raise ConfigError(f"{line}: the noise of an audit follows from --epsilon; leave it out")
        if not key.startswith(USED) and key not in USED_OF_FEDERATION:
            raise ConfigError(
                f"{line}: has no effect on an audit, in which all clients take part in every round and are averaged"
                f" alike. What counts: {', '.join(USED + USED_OF_FEDERATION)}"
            )


def play_worlds(setting: Setting, worlds: Sequence[int]) -> Signals:
    """For a process of its own."""
    return play(open_arm(setting).game, worlds)


def attack_batch(setting: Setting, batch_size: int, steps: int) -> Inversion:
    """Invert the update that a client with `batch_size` examples makes of them in one step, at the initial model.

    Under DP all of them are in the batch: the case that is best for the attacker.
    """
    arm = open_arm(setting)
    game, batch = arm.game, arm.game.candidates.span(0, batch_size)
    training = game.training
    if isinstance(training, PrivateTraining):
        training = replace(training, steps=1, sample_rate=1.0, public_count=lambda count: count)
    else:
        training = replace(training, local_epochs=1, batch_size=batch_size)  # type: ignore[type-var]
    update = one_update(game.model, training, batch, game.seed)
    return invert(game.task, game.model, update, batch, arm.public, game.seed, steps)
