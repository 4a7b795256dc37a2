"""GroupNorm in place of BatchNorm.

BatchNorm's statistics are those of one client's batches: averaging them over clients whose data differ costs
accuracy (Hsieh et al., "The Non-IID Data Quagmire of Decentralized Machine Learning", ICML 2020), and
they mix the examples of a batch, which differentially private training must not.
"""

from collections import OrderedDict

from torch import Tensor, nn

from fedapp.common.errors import ConfigError

__all__ = ["Copy", "exchange_batch_norm", "group_norm"]


class Copy(nn.Module):
    """Gives a copy of its input, which a network may then change in place.

    Opacus hooks the layers that have parameters, and torch forbids changing the output of a hooked layer in
    place, as torchvision does (`out += identity` in ResNet, `F.relu(..., inplace=True)` in DenseNet).
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


def group_norm(channels: int, groups: int, eps: float = 1e-5) -> nn.GroupNorm:
    """GroupNorm over (B, channels, H, W) in the largest number of groups up to `groups` that divides `channels`.

    Wu & He, "Group Normalization" (ECCV 2018). Raises ConfigError for fewer than one group.
    """
    if type(groups) is not int or groups < 1:
        raise ConfigError(f"model.groups={groups}: must be a positive integer, e.g. model.groups=8")
    divisor = next(count for count in range(min(groups, channels), 0, -1) if channels % count == 0)
    return nn.GroupNorm(divisor, channels, eps=eps)


def exchange_batch_norm(net: nn.Module, groups: int) -> None:
    """Put `group_norm` and a `Copy` where `net`, a network for images, has a BatchNorm2d."""
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            norm = group_norm(module.num_features, groups, module.eps)
            net.set_submodule(name, nn.Sequential(OrderedDict(norm=norm, copy=Copy())))
