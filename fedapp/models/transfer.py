"""Adapting a network that has learnt something else: what of it is trained, and what stays frozen."""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from fedapp.common.errors import ConfigError

__all__ = ["OnFeatures", "Trainable", "adapt", "last_linear", "split"]

Trainable = Literal["head", "last_k", "lora", "full"]


class OnFeatures(nn.Module):
    """A head on a frozen body: (B, *input_shape) to (B, num_outputs).

    The body is never trained and always in evaluation mode, so what it makes of an example is always the same, and
    need be computed but once.
    """

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body.requires_grad_(False), head

    def train(self, mode: bool = True) -> "OnFeatures":
        super().train(mode)
        self.body.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x))
        return out


class FeatureNorm(nn.Module):
    """Each example's features to mean 0 and variance 1: for bodies whose features are very small or large.

    Of each example alone, so that no example's features depend on another's.
    """

    def forward(self, features: Tensor) -> Tensor:
        centred = features - features.mean(1, keepdim=True)
        return centred / centred.square().mean(1, keepdim=True).sqrt().clamp(min=1e-30)


def adapt(
    net: nn.Module,
    *,
    trainable: Trainable,
    last_k: int,
    lora: Mapping[str, int | float],
    feature_norm: Literal["none", "layer"],
) -> nn.Module:
    """`net`, a classifier that ends in a linear layer, so that only what `trainable` says can be trained.

    head: the last linear layer, newly made by the caller. last_k: the last `last_k` layers that have parameters. lora:
    low-rank additions to linear and convolution layers (Hu et al. 2022, by peft) and the last linear layer. full:
    everything. Raises ConfigError for what cannot be.
    """
    _check_ranges(last_k, lora, needed=trainable == "lora")
    if feature_norm != "none" and trainable != "head":
        raise ConfigError(f"model.feature_norm={feature_norm}: has an effect with model.trainable=head only")
    if trainable == "full":
        return net
    name, head = last_linear(net)
    if trainable == "head":
        net.set_submodule(name, nn.Flatten())
        layers = [FeatureNorm(), head] if feature_norm == "layer" else [head]
        return OnFeatures(net, nn.Sequential(*layers))
    net.requires_grad_(False)
    if trainable == "lora":
        net = _with_lora(net, name, lora)
    else:
        _unfreeze_last(net, last_k)
    _freeze_batch_norm(net)
    return net


def split(whole: nn.Sequential) -> tuple[nn.Module | None, nn.Module]:
    """The frozen part of an assembled model, whose output can be kept, and the part that is trained on it.

    (None, the whole) where training needs the whole network.
    """
    net = whole.get_submodule("net")
    if not isinstance(net, OnFeatures):
        return None, whole
    rest = [module for name, module in whole.named_children() if name not in ("input", "net")]
    trained = nn.Sequential(net.head, *rest) if rest else net.head
    return nn.Sequential(whole.get_submodule("input"), net.body).eval(), trained


def last_linear(net: nn.Module) -> tuple[str, nn.Linear]:
    """The name of a classifier's head, and the head. Raises ConfigError where there is none."""
    layers = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise ConfigError("model.trainable: this network has no linear layer, so it has no head; set it to full")
    return layers[-1]


def _check_ranges(last_k: int, lora: Mapping[str, int | float], *, needed: bool) -> None:
    """Whether they serve or not: a value that could never serve is a mistake."""
    if last_k < 1:
        raise ConfigError(f"model.last_k={last_k}: must be at least 1")
    if not lora and not needed:
        return
    if lora.keys() != {"rank", "alpha"}:
        raise ConfigError(f"model.lora={dict(lora)}: must have rank and alpha, and nothing else")
    if not isinstance(lora["rank"], int) or lora["rank"] < 1:
        raise ConfigError(f"model.lora.rank={lora['rank']}: must be a whole number, at least 1")
    if not lora["alpha"] > 0:
        raise ConfigError(f"model.lora.alpha={lora['alpha']}: must be greater than 0")


def _unfreeze_last(net: nn.Module, count: int) -> None:
    layers = [module for module in net.modules() if any(True for _ in module.parameters(recurse=False))]
    if not 1 <= count <= len(layers):
        raise ConfigError(f"model.last_k={count}: must lie in 1..{len(layers)}, the layers that have parameters")
    for layer in layers[-count:]:
        layer.requires_grad_(True)


def _with_lora(net: nn.Module, head: str, lora: Mapping[str, int | float]) -> nn.Module:
    from peft import LoraConfig, inject_adapter_in_model  # 4 s to import

    # peft makes its additions of a convolution's class, and knows how to make torch's own only.
    targets = [
        name
        for name, module in net.named_modules()
        if name != head and (isinstance(module, nn.Linear) or (type(module) is nn.Conv2d and module.groups == 1))
    ]
    config = LoraConfig(r=int(lora["rank"]), lora_alpha=lora["alpha"], target_modules=targets)  # type: ignore[arg-type]
    adapted: nn.Module = inject_adapter_in_model(config, net)
    adapted.get_submodule(head).requires_grad_(True)
    return adapted


def _freeze_batch_norm(net: nn.Module) -> None:
    """Whose parameters are frozen works with its statistics for ever: it mixes no examples, and sends nothing."""
    from torchvision.ops import FrozenBatchNorm2d  # type: ignore[import-untyped, unused-ignore]

    for name, module in list(net.named_modules()):
        if isinstance(module, nn.BatchNorm2d) and not any(p.requires_grad for p in module.parameters()):
            frozen = FrozenBatchNorm2d(module.num_features, eps=module.eps)
            frozen.load_state_dict(module.state_dict(), strict=False)
            net.set_submodule(name, frozen)
