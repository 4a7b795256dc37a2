"""From config to objects, on a SuperNode."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedapp.client.site import Site
from fedapp.client.storage import Folder
from fedapp.common.errors import ConfigError
from fedapp.config import Config
from fedapp.data.augmentation import augmentation
from fedapp.data.features import FeatureFiles, Features
from fedapp.learning.build import Parts, build_parts, build_shards, optimizer_factory
from fedapp.learning.training import LocalTraining, resolve_device
from fedapp.privacy.limits import OwnLimits

__all__ = ["build_site", "build_training"]


def build_site(
    config: Config, data_path: Path | None, limits: OwnLimits | None = None, folder: Folder | None = None
) -> Site:
    """A SuperNode's side. A device's own `data_path` comes before anything that the config says.

    `limits`: what its operator has set, whatever the config says. `folder`: where it may keep features.
    """
    if data_path is not None:
        # The operator named the data. What the config says of files must not be looked at: a server could read others.
        data = {key: None if key in ("path", "test_path") else value for key, value in config.data.items()}
        config = replace(config, data=data)
    parts = build_parts(config)
    device = resolve_device(config.run.device)
    files = FeatureFiles(folder.path / "features", parts.backbone, folder.feature_bytes) if folder is not None else None
    options: dict[str, Any] = {
        "shards": build_shards(config, parts, data_path),
        "task": parts.task,
        "whole": parts.whole.to(device),
        "model": parts.model,
        "features": Features(parts.frozen, files, bool(config.train.augmentation))
        if parts.frozen is not None
        else None,
        "backbone": parts.backbone,
        "seed": config.run.seed,
        "max_update_norm": config.strategy.max_update_norm,
    }
    if config.privacy.name == "none":
        return Site(training=build_training(config, parts, limits), **options)
    from fedapp.client.dp_site import PrivateSite
    from fedapp.privacy.build import build_private_training, check_privacy  # Opacus takes 2 s to import

    if limits is not None and limits.max_seconds is not None:
        raise ConfigError(
            f"node-config max-seconds={limits.max_seconds:g}: under privacy=dp_sgd the number of steps must not depend"
            " on how fast this machine is; leave it out"
        )
    plan = check_privacy(config, parts, limits)
    budget = plan.budget
    if data_path is not None and (budget.void or not budget.cost.noise_multiplier):
        source, sigma = config.privacy.noise_source, budget.cost.noise_multiplier
        raise ConfigError(
            f"privacy.noise_source={source}, privacy.noise_multiplier={sigma}: not on a device, whose data is real"
        )
    return PrivateSite(training=build_private_training(config, parts, plan), budget=budget, **options)


def build_training(config: Config, parts: Parts, limits: OwnLimits | None = None) -> LocalTraining:
    """The shorter of the server's and the operator's time counts."""
    bounds = [config.train.max_seconds, limits.max_seconds if limits is not None else None]
    return LocalTraining(
        loss=parts.task.loss,
        optimizer=optimizer_factory("optimizer", config.optimizer),
        local_epochs=config.train.local_epochs,
        batch_size=config.train.batch_size,
        proximal_mu=config.train.proximal_mu,
        prepare=_preparation(config, parts),
        precision=config.train.precision,
        max_seconds=min((bound for bound in bounds if bound is not None), default=None),
    )


def _preparation(config: Config, parts: Parts) -> Callable[[Tensor], Tensor] | None:
    """Augmentation, and what the frozen part makes of its result, which is new each time; None without it."""
    augment, frozen = augmentation(config.train.augmentation, parts.task.schema), parts.frozen
    if augment is None or frozen is None:
        return augment

    @torch.no_grad()
    def prepare(images: Tensor) -> Tensor:
        features: Tensor = frozen(augment(images))
        return features

    return prepare
