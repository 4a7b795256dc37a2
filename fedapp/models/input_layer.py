"""The first layer of every model: inputs as stored become inputs as networks like them.

The scaling is part of the model, so that a saved model takes raw examples and no other program has to know it.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from fedapp.common.errors import DataError
from fedapp.data.source import Schema
from fedapp.models.shared_state import keep_constant

__all__ = ["InputLayer", "TokenLayer", "assemble", "input_layer"]


class InputLayer(nn.Module):
    """`(x - offset) / scale` in float32; NaN then becomes 0, the feature's mean, where the schema imputes.

    Takes (B, *input_shape) of any real dtype and gives the same shape. `offset` and `scale` are buffers: of
    shape () or input_shape under fixed scaling, of shape input_shape under federated scaling, where they are 0 and 1
    until `set_statistics`. No parameter and no branch on data, so that it works under vmap, torch.func and Opacus.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        scaling = schema.scaling
        if scaling.kind == "fixed":
            offset, scale = torch.tensor(scaling.offset), torch.tensor(scaling.scale)
        else:
            offset, scale = torch.zeros(schema.input_shape), torch.ones(schema.input_shape)
        self.register_buffer("offset", offset.float())
        self.register_buffer("scale", scale.float())
        keep_constant(self)
        self.impute = schema.impute
        self.features = schema.features

    def forward(self, x: Tensor) -> Tensor:
        x = (x.to(torch.float32) - self.offset) / self.scale
        return torch.where(x.isnan(), 0.0, x) if self.impute else x

    def random_inputs(self, shape: tuple[int, ...], random: torch.Generator) -> Tensor:
        """Inputs (n, *input_shape) spread as the scaling expects, with some missing values where it imputes."""
        inputs = self.offset + self.scale * torch.randn(shape, generator=random)
        return torch.where(torch.rand(shape, generator=random) < 0.1, torch.nan, inputs) if self.impute else inputs

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Scale by each feature's `mean` and `std` over all clients, both of the shape of `offset`.

        A constant feature becomes 0. Raises DataError, which names the feature, for a value that is not
        finite, and ValueError for a wrong shape; either way the layer stays as it was.
        """
        if not self.offset.shape == mean.shape == std.shape:
            raise ValueError(
                f"mean has shape {tuple(mean.shape)} and std {tuple(std.shape)}, the input layer needs"
                f" {tuple(self.offset.shape)}"
            )
        mean, std = mean.double(), std.double()
        known = (mean.isfinite() & std.isfinite()).flatten()
        if not known.all():
            index = int(known.logical_not().nonzero()[0])
            feature = repr(self.features[index]) if self.features else index
            raise DataError(f"feature {feature}: has no finite mean and standard deviation over the clients")
        # Below the resolution of float32 at the mean, a deviation is what rounding left of a constant.
        constant = std <= torch.finfo(torch.float32).eps * mean.abs()
        self.offset.copy_(mean)
        self.scale.copy_(torch.where(constant, 1.0, std))


class TokenLayer(nn.Module):
    """Token indices (B, *input_shape) int64 as they are, for an embedding of `vocabulary` tokens."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary

    def forward(self, x: Tensor) -> Tensor:
        return x

    def random_inputs(self, shape: tuple[int, ...], random: torch.Generator) -> Tensor:
        """Any tokens, each as likely."""
        return torch.randint(self.vocabulary, shape, generator=random)


def input_layer(schema: Schema) -> InputLayer | TokenLayer:
    """The layer for inputs as `schema` has them."""
    return TokenLayer(schema.vocabulary) if schema.vocabulary else InputLayer(schema)


def assemble(net: nn.Module, layer: nn.Module, output: nn.Module | None = None) -> nn.Sequential:
    """`net` between its input layer and its output layer, if it has one: (B, *input_shape) as stored to what the last
    one gives."""
    ends = {} if output is None else {"output": output}
    return nn.Sequential(OrderedDict(input=layer, net=net, **ends))
