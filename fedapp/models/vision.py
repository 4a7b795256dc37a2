"""The classification networks of torchvision, fitted to the data's channels and classes."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fedapp.common.errors import ConfigError, DeviceError
from fedapp.data.source import Schema
from fedapp.models.fit import check_choice, image_shape
from fedapp.models.normalization import exchange_batch_norm
from fedapp.models.shared_state import keep_constant
from fedapp.models.transfer import Trainable, adapt, last_linear
from fedapp.models.weights import load_into, read_weights, weights_wanted

__all__ = ["torchvision_model"]

# They come with extra classifiers for training, and then give a named tuple instead of logits.
AUXILIARY = ("googlenet", "inception_v3")


class LikePublished(nn.Module):
    """Grey (B, 1, H, W) or RGB images of 0..1 to RGB, scaled by channel as the published weights learnt."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])
        keep_constant(self)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def torchvision_model(
    schema: Schema,
    *,
    name: str,
    norm: Literal["batch", "group"],
    groups: int,
    pretrained: bool | str,
    weights_sha256: str | None,
    trainable: Trainable,
    last_k: int,
    lora: Mapping[str, int | float],
    feature_norm: Literal["none", "layer"],
) -> nn.Module:
    """(B, C, H, W) to (B, num_outputs) through torchvision's network `name`.

    `pretrained`: false for random weights, true for the published ones, which torchvision downloads, or the path of a
    file with the whole published network's (`weights_sha256`: refused if it has another SHA-256). `norm="group"`
    exchanges every BatchNorm for GroupNorm in up to `groups` groups. Nothing works in place afterwards that Opacus
    could not hook. Some networks take one image size only (vit_b_16: 224 x 224); `check_fits` finds that out. Raises
    ConfigError for an unknown name, weights that do not fit, and examples that are no images.
    """
    # Here and not above: importing torchvision takes seconds, which other models need not wait for.
    from torchvision.models import get_model  # type: ignore[import-untyped, unused-ignore]

    _check_name(name)
    check_choice("model.norm", norm, ("batch", "group"))
    channels, _, _ = image_shape(schema, f"torchvision model.name={name}")
    options = {"aux_logits": False, "init_weights": True} if name in AUXILIARY else {}
    if pretrained is False:
        if weights_sha256 is not None:
            raise ConfigError("model.weights_sha256: has no effect with model.pretrained=false; leave it null")
        net: nn.Module = get_model(name, weights=None, num_classes=schema.num_outputs, **options)
        if channels != 3:
            _exchange_first_convolution(net, channels)
    else:
        if norm == "group":
            raise ConfigError(
                f"model.pretrained={pretrained}: the weights are those of BatchNorm; set model.norm=batch"
            )
        if channels not in (1, 3):
            raise ConfigError(f"model.pretrained={pretrained}: takes grey or RGB images, not {channels} channels")
        net = _published(name, pretrained, weights_sha256, schema.num_outputs)
    if norm == "group":
        exchange_batch_norm(net, groups)
    for module in net.modules():
        if "inplace" in vars(module):  # activations and dropout; see normalization.Copy for the reason
            vars(module)["inplace"] = False
    return adapt(net, trainable=trainable, last_k=last_k, lora=lora, feature_norm=feature_norm)


def _published(name: str, pretrained: bool | str, sha256: str | None, num_outputs: int) -> nn.Module:
    """The network with its published weights and a new head, behind the scaling that they learnt with."""
    from torchvision.models import get_model, get_model_weights

    weights = get_model_weights(name).DEFAULT
    if isinstance(pretrained, str) or not weights_wanted():
        net: nn.Module = get_model(name, weights=None, **_published_form(name, weights))
        if isinstance(pretrained, str) and weights_wanted():
            load_into(net, read_weights(Path(pretrained), sha256), f"model.pretrained={pretrained}")
    else:
        try:
            net = get_model(name, weights=weights)
        except OSError as error:  # no network; URLError is one of these
            raise DeviceError(
                f"model.pretrained=true: {name}'s published weights cannot be downloaded ({error}). With no network:"
                " model.pretrained=/path/to/weights.safetensors, model=efficientnet_lite0, whose weights a package"
                " carries, or model.pretrained=false"
            ) from None
    head_name, head = last_linear(net)
    net.set_submodule(head_name, nn.Linear(head.in_features, num_outputs))
    scaling = weights.transforms()
    return nn.Sequential(LikePublished(list(scaling.mean), list(scaling.std)), net)


def _published_form(name: str, weights: Any) -> dict[str, Any]:
    """What torchvision builds differently for its published weights, so that their network can be had without them."""
    if name in AUXILIARY:
        return {"aux_logits": False, "init_weights": False, "transform_input": True}
    return {"image_size": weights.meta["min_size"][0]} if name.startswith("vit_") else {}


def _check_name(name: str) -> None:
    import torchvision  # type: ignore[import-untyped, unused-ignore]

    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        close = get_close_matches(str(name).lower(), names, n=4)
        raise ConfigError(
            f"model.name={name}: torchvision has no classification model of that name."
            + (f" Close to it: {', '.join(close)}." if close else "")
            + " All names: https://pytorch.org/vision/stable/models.html#classification"
        )


def _exchange_first_convolution(net: nn.Module, channels: int) -> None:
    """Let the layer that sees the image take (B, `channels`, H, W) instead of RGB."""
    name, old = next((name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d))
    new = nn.Conv2d(
        channels,
        old.out_channels,
        (old.kernel_size[0], old.kernel_size[1]),
        stride=(old.stride[0], old.stride[1]),
        padding=old.padding if isinstance(old.padding, str) else (old.padding[0], old.padding[1]),
        bias=old.bias is not None,
    )
    net.set_submodule(name, new)
