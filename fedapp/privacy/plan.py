"""From config to a plan of DP-SGD: what a round costs each client, and how per-example gradients are made."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from fedapp.common.errors import ConfigError
from fedapp.config import Config
from fedapp.data.source import Examples
from fedapp.learning.build import Parts, optimizer_factory
from fedapp.privacy.accounting import Spending, calibrate, epsilon
from fedapp.privacy.budget import Budget, planned_participations, rounded_up
from fedapp.privacy.dp_training import PrivateTraining
from fedapp.privacy.limits import OwnLimits
from fedapp.privacy.noise import make_noise
from fedapp.privacy.trainable import check_private, choose_mode, working_mode

if TYPE_CHECKING:
    from fedapp.privacy.dp_sgd import DpSgd

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True)
class Plan:
    """How clients train under DP-SGD: each one's budget, Opacus's way to make per-example gradients (`mode`, and the
    `reason` for it), and the training."""

    budget: Budget
    mode: str
    reason: str
    training: PrivateTraining


def make_plan(privacy: "DpSgd", config: Config, parts: Parts, limits: OwnLimits) -> Plan:
    """Raises ConfigError for a model that DP-SGD cannot train, and a budget that lasts for no round."""
    check_private(parts.model, _instead_of_batch_norm(config))
    budget = _budget(privacy, config, limits)
    _check_one_round(privacy, budget)
    training = _training(privacy, config, parts, budget)
    mode, reason = working_mode(
        training,
        parts.model,
        _two_examples(parts),
        wanted=privacy.grad_sample_mode,
        fastest=choose_mode(parts.model, config.train.batch_size),
    )
    return Plan(budget, mode, reason, replace(training, mode=mode))


def _check_one_round(privacy: "DpSgd", budget: Budget) -> None:
    """Noise so small that every client would decline its first round."""
    sigma, target = privacy.noise_multiplier, privacy.target_epsilon
    if sigma is None or target is None or budget.void:
        return
    if (once := epsilon([budget.cost], privacy.delta_for_planning, budget.accountant)) > target:
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


def _budget(privacy: "DpSgd", config: Config, limits: OwnLimits) -> Budget:
    rate = privacy.sample_rate
    steps = max(1, round(config.train.local_epochs / rate))
    if limits.max_steps is not None and steps > limits.max_steps:  # before anything is computed for so many
        raise ConfigError(
            f"train.local_epochs={config.train.local_epochs}, privacy.sample_rate={rate:g}: {steps} steps a round, and"
            " this SuperNode's operator allows fewer (node-config max-steps)"
        )
    rounds = privacy.planned_rounds or planned_participations(
        config.federation.num_rounds, config.federation.fraction_train
    )
    sigma, target = privacy.noise_multiplier, privacy.target_epsilon
    if sigma is None and target is None:
        raise ConfigError("privacy.noise_multiplier=null, privacy.target_epsilon=null: one of them is needed")
    if sigma is None:
        assert target is not None
        sigma = calibrate(target, privacy.delta_for_planning, rate, steps * rounds, privacy.accountant)
    most = [limit for limit in (target, limits.max_epsilon) if limit is not None]
    return Budget(
        cost=Spending(sigma, rate, steps),
        max_epsilon=min(most, default=float("inf")),
        delta=privacy.delta,
        strict_delta=limits.of_device,
        accountant=privacy.accountant,
        round_counts_to=limits.round_counts_to or privacy.round_counts_to,
        void=privacy.noise_source != "os_entropy",
    )


def _two_examples(parts: Parts) -> Examples:
    """What the trained part of the model takes, to try a step on."""
    inputs = parts.task.example_inputs(2).to(next(parts.whole.parameters()).device)
    if parts.frozen is not None:
        with torch.no_grad():
            inputs = parts.frozen(inputs)
    return Examples(inputs, parts.task.example_targets(2))


def _training(privacy: "DpSgd", config: Config, parts: Parts, budget: Budget) -> PrivateTraining:
    cost = budget.cost
    return PrivateTraining(
        loss=parts.task.loss_per_example,
        optimizer=optimizer_factory("optimizer", config.optimizer),
        noise=lambda: make_noise(privacy.noise_source, config.run.seed),
        noise_multiplier=cost.noise_multiplier,
        max_grad_norm=privacy.max_grad_norm,
        sample_rate=cost.sample_rate,
        steps=cost.steps,
        batch_size=config.train.batch_size,
        public_count=lambda count: rounded_up(count, budget.round_counts_to),
        proximal_mu=config.train.proximal_mu,
    )
