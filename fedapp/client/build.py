"""From config to objects, on a SuperNode."""

from dataclasses import replace
from pathlib import Path

from fedapp.client.site import Site
from fedapp.client.storage import Folder
from fedapp.config import Config
from fedapp.data.features import FeatureFiles, Features
from fedapp.learning.build import build_parts, build_shards
from fedapp.learning.training import resolve_device
from fedapp.privacy.limits import OwnLimits
from fedapp.privacy.option import privacy_of
from fedapp.updates.steps import steps_of

__all__ = ["build_site"]


def build_site(config: Config, data_path: Path | None, limits: OwnLimits, folder: Folder | None = None) -> Site:
    """A SuperNode's side. A device's own `data_path` comes before anything that the config says.

    `limits`: what its operator has set, whatever the config says. `folder`: where it may store features. Raises
    FedappError for a config that cannot work here.
    """
    if data_path is not None:
        # The operator named the data. What the config says of files must not be looked at: a server could read others.
        data = {key: None if key in ("path", "test_path") else value for key, value in config.data.items()}
        config = replace(config, data=data)
    parts = build_parts(config)
    protection = privacy_of(config).protection(config, parts, limits, on_device=data_path is not None)
    backbone = parts.backbone
    parts.whole.to(resolve_device(config.run.device))
    files = FeatureFiles(folder.path / "features", backbone, folder.feature_bytes) if folder is not None else None
    features = Features(parts.frozen, files, bool(config.train.augmentation)) if parts.frozen is not None else None
    shards = build_shards(config, parts, data_path)
    return Site(parts, shards, protection, steps_of(config), seed=config.run.seed, features=features, backbone=backbone)
