"""The models and data that the benchmarks share: those of McMahan et al. 2017, on random 28 x 28 images."""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from torch import Tensor, nn

from fedapp.common.seeding import generator, seeded
from fedapp.config import compose, instantiate
from fedapp.data.source import Examples, Schema

__all__ = ["MODELS", "examples", "per_example_loss", "sgd"]

SCHEMA = Schema(input_shape=(1, 28, 28), classes=tuple("0123456789"))


def _model(*overrides: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        with seeded(0, "benchmark"):
            made = instantiate("model", compose(overrides).model, partial=True)(SCHEMA)
        assert isinstance(made, nn.Module)
        return made

    return make


MODELS = {
    "2NN": _model("model=mlp", "model.hidden=[200,200]"),
    "CNN": _model("model=cnn", "model.channels=[32,64]", "model.kernel_size=5", "model.hidden=512", "model.norm=none"),
}


def examples(count: int) -> Examples:
    random = generator("benchmark")
    return Examples(torch.randn(count, 1, 28, 28, generator=random), torch.randint(10, (count,), generator=random))


def per_example_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


def sgd(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01)  # type: ignore[arg-type]
