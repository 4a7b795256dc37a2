"""Logistic regression, or linear regression where the target is a number."""

from math import prod

from torch import nn

from fedapp.data.source import Schema

__all__ = ["linear"]


def linear(schema: Schema) -> nn.Module:
    """(B, *input_shape) to (B, num_outputs): logits, or the predicted target."""
    return nn.Sequential(nn.Flatten(), nn.Linear(prod(schema.input_shape), schema.num_outputs))
