"""From config to objects, under differential privacy."""

from logging import INFO

from flwr.common.logger import log

from fedapp.build import Parts, optimizer_factory
from fedapp.config import Config
from fedapp.errors import ConfigError
from fedapp.privacy.accounting import Spending, calibrate
from fedapp.privacy.budget import Budget, planned_participations, rounded_up
from fedapp.privacy.check import check_private, choose_mode
from fedapp.privacy.limits import LARGEST_DELTA, OwnLimits
from fedapp.privacy.noise import make_noise
from fedapp.privacy.training import PrivateTraining

__all__ = ["build_budget", "build_private_training", "check_privacy", "chosen_mode"]

NEEDED = ("max_grad_norm", "sample_rate", "accountant", "grad_sample_mode", "round_counts_to", "noise_source")


def check_privacy(config: Config, parts: Parts) -> Budget:
    """Refuse, before anything starts, what privacy=dp_sgd cannot protect. Returns each client's budget."""
    privacy = config.privacy
    for name in NEEDED:
        if getattr(privacy, name) is None:
            raise ConfigError(f"privacy.{name}=null: a value is needed under privacy=dp_sgd")
    if config.train.val_fraction:
        raise ConfigError(
            f"train.val_fraction={config.train.val_fraction}: under privacy=dp_sgd no validation figure leaves a"
            " client; set it to 0"
        )
    if config.federation.final_evaluation:
        raise ConfigError(
            "federation.final_evaluation=true: under privacy=dp_sgd no figure leaves a client; set it to false"
        )
    if parts.task.schema.scaling.kind == "federated":
        raise ConfigError(
            "data.scaling=federated: under privacy=dp_sgd the means and deviations of clients' data must not leave"
            " them; use public constants: data.scaling=published (data=breast_cancer), given or none (data=csv)"
        )
    if config.train.max_seconds is not None:
        raise ConfigError(
            "train.max_seconds: under privacy=dp_sgd the number of steps must not depend on the data; leave it null"
        )
    if config.train.precision != "fp32":
        raise ConfigError(
            f"train.precision={config.train.precision}: under privacy=dp_sgd, clipping and noise need fp32; set that"
        )
    check_private(parts.model)
    return build_budget(config)


def build_budget(config: Config, limits: OwnLimits | None = None) -> Budget:
    """`limits` are the operator's, which no config can lift."""
    privacy, own = config.privacy, limits or OwnLimits()
    rate = float(privacy.sample_rate or 0)
    steps = max(1, round(config.train.local_epochs / rate))
    rounds = privacy.planned_rounds or planned_participations(
        config.federation.num_rounds, config.federation.fraction_train
    )
    sigma, target = privacy.noise_multiplier, privacy.target_epsilon
    if sigma is None and target is None:
        raise ConfigError("privacy.noise_multiplier=null, privacy.target_epsilon=null: one of them is needed")
    if sigma is None:
        assert target is not None
        delta = privacy.delta or LARGEST_DELTA
        sigma = calibrate(target, delta, rate, steps * rounds, str(privacy.accountant))
    most = [limit for limit in (target, own.max_epsilon) if limit is not None]
    return Budget(
        cost=Spending(sigma, rate, steps),
        max_epsilon=min(most, default=float("inf")),
        delta=privacy.delta,
        strict_delta=own.of_device,
        accountant=str(privacy.accountant),
        round_counts_to=own.round_counts_to or int(privacy.round_counts_to or 1),
        void=privacy.noise_source != "os_entropy",
    )


def chosen_mode(config: Config, parts: Parts) -> tuple[str, str]:
    """Opacus's way to make gradients for each example, and why it is this one."""
    mode = str(config.privacy.grad_sample_mode)
    return choose_mode(parts.model, config.train.batch_size) if mode == "auto" else (mode, "as configured")


def build_private_training(config: Config, parts: Parts, budget: Budget) -> PrivateTraining:
    privacy, cost = config.privacy, budget.cost
    mode, reason = chosen_mode(config, parts)
    log(INFO, "DP-SGD with per-example gradients by %s: %s", mode, reason)
    return PrivateTraining(
        loss=parts.task.loss_per_example,
        optimizer=optimizer_factory("optimizer", config.optimizer),
        noise=lambda: make_noise(str(privacy.noise_source), config.run.seed),
        noise_multiplier=cost.noise_multiplier,
        max_grad_norm=float(privacy.max_grad_norm or 0),
        sample_rate=cost.sample_rate,
        steps=cost.steps,
        batch_size=config.train.batch_size,
        public_count=lambda count: rounded_up(count, budget.round_counts_to),
        mode=mode,
        proximal_mu=config.train.proximal_mu,
        max_seconds=config.train.max_seconds,
    )
