"""The classification networks of torchvision, untrained, fitted to the data's channels and classes."""

from difflib import get_close_matches
from typing import Literal

from torch import nn

from fedapp.data.source import Schema
from fedapp.errors import ConfigError
from fedapp.models.check import check_choice, image_shape
from fedapp.models.normalization import exchange_batch_norm

__all__ = ["torchvision_model"]

# They come with extra classifiers for training, and then give a named tuple instead of logits.
AUXILIARY = ("googlenet", "inception_v3")


def torchvision_model(schema: Schema, *, name: str, norm: Literal["batch", "group"], groups: int) -> nn.Module:
    """(B, C, H, W) to (B, num_outputs) through torchvision's network `name`, with random weights.

    `norm="group"` exchanges every BatchNorm for GroupNorm in up to `groups` groups. Nothing works in place
    afterwards that Opacus could not hook. Some networks take one image size only (vit_b_16: 224 x 224);
    `check_fits` finds that out. Raises ConfigError for an unknown name and examples that are no images.
    """
    # Here and not above: importing torchvision takes seconds, which other models need not wait for.
    from torchvision.models import get_model  # type: ignore[import-untyped, unused-ignore]

    _check_name(name)
    check_choice("model.norm", norm, ("batch", "group"))
    channels, _, _ = image_shape(schema, f"torchvision model.name={name}")
    options = {"aux_logits": False, "init_weights": True} if name in AUXILIARY else {}
    net: nn.Module = get_model(name, weights=None, num_classes=schema.num_outputs, **options)
    if channels != 3:
        _exchange_first_convolution(net, channels)
    if norm == "group":
        exchange_batch_norm(net, groups)
    for module in net.modules():
        if "inplace" in vars(module):  # activations and dropout; see normalization.Copy for the reason
            vars(module)["inplace"] = False
    return net


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
