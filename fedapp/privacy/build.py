"""From config to objects, under differential privacy."""

from dataclasses import dataclass
from logging import INFO

import torch
from flwr.common.logger import log

from fedapp.common.errors import ConfigError
from fedapp.config import Config
from fedapp.data.source import Examples
from fedapp.learning.build import Parts, optimizer_factory
from fedapp.privacy.accounting import Spending, calibrate, epsilon
from fedapp.privacy.budget import Budget, planned_participations, rounded_up
from fedapp.privacy.dp_training import PrivateTraining
from fedapp.privacy.limits import LARGEST_DELTA, OwnLimits
from fedapp.privacy.noise import make_noise
from fedapp.privacy.trainable import check_private, choose_mode, working_mode

__all__ = ["Plan", "build_private_training", "check_privacy"]

NEEDED = ("max_grad_norm", "sample_rate", "accountant", "grad_sample_mode", "round_counts_to", "noise_source")


@dataclass(frozen=True)
class Plan:
    """How clients train in private: each one's budget, and Opacus's way to make gradients for each example (`mode`,
    and the `reason` for it)."""

    budget: Budget
    mode: str
    reason: str


def check_privacy(config: Config, parts: Parts, limits: OwnLimits | None = None) -> Plan:
    """Refuse, before anything starts, what privacy=dp_sgd cannot protect.

    `limits` are the operator's, which no config can lift.
    """
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
    if config.train.augmentation:
        raise ConfigError(
            f"train.augmentation=[{','.join(config.train.augmentation)}]: not under privacy=dp_sgd. Which change an"
            " example gets would depend on the examples drawn beside it; leave it empty"
        )
    if config.train.precision != "fp32":
        raise ConfigError(
            f"train.precision={config.train.precision}: under privacy=dp_sgd, clipping and noise need fp32; set that"
        )
    check_private(parts.model, _instead_of_batch_norm(config))
    budget = _budget(config, limits or OwnLimits())
    _check_one_round(config, budget)
    return Plan(budget, *_mode(config, parts, budget))


def _check_one_round(config: Config, budget: Budget) -> None:
    """Noise so small that every client would decline its first round."""
    sigma, target = config.privacy.noise_multiplier, config.privacy.target_epsilon
    if sigma is None or target is None or budget.void:
        return
    if (once := epsilon([budget.cost], config.privacy.delta or LARGEST_DELTA, budget.accountant)) > target:
        raise ConfigError(
            f"privacy.noise_multiplier={sigma}, privacy.target_epsilon={target}: one round alone costs"
            f" {once:.3g}, so no client would train; set privacy.noise_multiplier=null, which finds what is needed"
        )


def _instead_of_batch_norm(config: Config) -> str:
    """The override that leaves no BatchNorm to be trained, which depends on the model."""
    model = config.model
    if "trainable" in model and (model.get("pretrained") or "norm" not in model):
        return "Leave it frozen: model.trainable=head or model.trainable=lora"
    return "Use GroupNorm: model.norm=group" if "norm" in model else "Use GroupNorm in its place"


def _budget(config: Config, own: OwnLimits) -> Budget:
    privacy = config.privacy
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


def _mode(config: Config, parts: Parts, budget: Budget) -> tuple[str, str]:
    inputs = parts.task.example_inputs(2).to(next(parts.whole.parameters()).device)
    if parts.frozen is not None:
        with torch.no_grad():
            inputs = parts.frozen(inputs)
    return working_mode(
        _training(config, parts, budget, mode="hooks"),
        parts.model,
        Examples(inputs, parts.task.example_targets(2)),
        wanted=str(config.privacy.grad_sample_mode),
        fastest=choose_mode(parts.model, config.train.batch_size),
    )


def build_private_training(config: Config, parts: Parts, plan: Plan) -> PrivateTraining:
    log(INFO, "DP-SGD with per-example gradients by %s: %s", plan.mode, plan.reason)
    return _training(config, parts, plan.budget, plan.mode)


def _training(config: Config, parts: Parts, budget: Budget, mode: str) -> PrivateTraining:
    privacy, cost = config.privacy, budget.cost
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
