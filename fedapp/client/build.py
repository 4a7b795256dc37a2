"""From config to objects, on a SuperNode."""

from dataclasses import replace
from pathlib import Path, PurePath

from fedapp.client.own_models import OwnModels
from fedapp.client.site import Site
from fedapp.client.storage import Folder
from fedapp.common.errors import ConfigError, DeviceError
from fedapp.config import Config
from fedapp.data.features import FeatureFiles, Features
from fedapp.learning.build import Parts, build_parts, build_training, bytes_of, model_bytes
from fedapp.learning.build_shards import build_shards
from fedapp.learning.training import resolve_device
from fedapp.models.shared_state import buffer_names
from fedapp.privacy.limits import OwnLimits
from fedapp.privacy.option import privacy_of
from fedapp.updates.downlink import downlink_of
from fedapp.updates.steps import steps_of

__all__ = ["build_own_parts", "build_site", "only_own_paths"]


def build_site(
    config: Config, data_path: Path | None, limits: OwnLimits, folder: Folder | None = None, *, seen: bool = True
) -> Site:
    """A SuperNode's side. A device's own `data_path` comes before anything that the config says.

    `limits`: what its operator has set, whatever the config says. `folder`: where it may store features. `seen`:
    whether the server sees single updates. Raises FedappError for a config that cannot work here.
    """
    if data_path is not None:
        config = only_own_paths(config, limits)
    try:
        parts = build_own_parts(config, limits)
    except ConfigError as error:
        if limits.weights is None or error.abroad is not None:
            raise
        raise DeviceError(str(error)) from error  # it may name a file of weights
    privacy = privacy_of(config)
    protection = privacy.protection(config, parts, limits, on_device=data_path is not None)
    backbone = parts.backbone
    parts.whole.to(resolve_device(config.run.device))
    files = FeatureFiles(folder.path / "features", backbone, folder.feature_bytes) if folder is not None else None
    features = Features(parts.frozen, files, bool(config.train.augmentation)) if parts.frozen is not None else None
    shards = build_shards(config, parts, data_path)
    steps = steps_of(config, privacy.steps(config, parts))
    return Site(
        parts,
        shards,
        protection,
        steps if seen else steps.unseen(),
        seed=config.run.seed,
        on_device=data_path is not None,
        features=features,
        backbone=backbone,
        own=_own_models(config, parts, limits),
        codec=downlink_of(config).codec(buffer_names(parts.model)),
    )


def _own_models(config: Config, parts: Parts, limits: OwnLimits) -> OwnModels | None:
    """Trained plainly also where updates are private: they never leave the client."""
    if (rule := parts.personal.own) is None:
        return None
    return OwnModels(rule, build_training(config, parts, limits.max_seconds, limits.max_steps))


def build_own_parts(config: Config, limits: OwnLimits) -> Parts:
    """Raises ConfigError for a model that is larger than the operator allows, before and after it is there."""
    _check_size(model_bytes(config) if limits.max_model_mb is not None else None, limits)
    parts = build_parts(config)
    _check_size(bytes_of(parts.whole), limits)
    return parts


def _check_size(size: int | None, limits: OwnLimits) -> None:
    """Raises ConfigError for a model that is larger than the operator allows."""
    if size is not None and limits.max_model_mb is not None and size > limits.max_model_mb << 20:
        raise ConfigError(
            f"model: takes {-(-size >> 20)} MB, and this SuperNode's operator allows less (node-config max-model-mb)"
        )


def only_own_paths(config: Config, limits: OwnLimits) -> Config:
    """The config on a device, where every path comes from its operator: a server could read other files, or learn of
    them. Data is where the node-config says; a file of weights is one that really lies in its `weights-dir`.

    Raises DeviceError, always in the same words to the server, for a file that is not there.
    """
    data = {key: None if key in ("path", "test_path") else value for key, value in config.data.items()}
    if isinstance(parties := data.get("parties"), dict):
        data["parties"] = dict.fromkeys(parties)
    model = dict(config.model)
    for section, key, named in ((model, "pretrained", "model.pretrained"), (data, "tokenizer", "data.tokenizer")):
        if isinstance(given := section.get(key), str):
            section[key] = str(_own_file(named, given, limits))
    return replace(config, data=data, model=model)


def _own_file(key: str, given: str, limits: OwnLimits) -> Path:
    """The file of that name in the operator's folder."""
    try:
        there = {file.name: file for file in limits.weights.iterdir()} if limits.weights is not None else {}
    except OSError as error:
        raise DeviceError(f"node-config weights-dir={limits.weights}: {error.strerror}") from None
    if (name := PurePath(given).name) not in there:
        raise DeviceError(
            f"{key}={given}: on a device weights and tokenizers come from the folder that its node-config names"
            f" (weights-dir={limits.weights}), which has no {name}"
        )
    return there[name]
