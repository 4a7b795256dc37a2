"""The networks of a split model, at their beginning: a function of config, party and seed."""

from collections.abc import Sequence

import torch
from torch import nn

from fedapp.common.seeding import seeded
from fedapp.config import Config, instantiate
from fedapp.config.nodes import Node
from fedapp.data.source import Scaling, Schema
from fedapp.learning.task import Task
from fedapp.models.fit import check_fits
from fedapp.models.input_layer import InputLayer, assemble
from fedapp.vertical.fusion import Fusion
from fedapp.vertical.split_model import build_top

__all__ = ["bottom_form", "bottom_network", "top_form", "top_network"]


def bottom_network(config: Config, party: str, features: tuple[str, ...]) -> nn.Sequential:
    """Of a party with these columns: (B, columns) to (B, embedding). Raises ConfigError for a model that does not fit
    a table."""
    width = config.vertical.embedding
    with seeded(config.run.seed, "vertical", party):
        net = bottom_form(config.model, features, width)
    check_fits(net, lambda count: torch.zeros(count, len(features)), (width,))
    return net


def bottom_form(model: Node, features: tuple[str, ...], width: int) -> nn.Sequential:
    """The network alone, with weights as they come. `width`: of the embedding."""
    classes = tuple(map(str, range(width))) if width > 1 else ()  # as many outputs as the embedding has values
    schema = Schema((len(features),), classes, features, Scaling("federated"), impute=True)
    return assemble(instantiate("model", model, partial=True)(schema), InputLayer(schema))


def top_network(config: Config, task: Task, fusion: Fusion, parties: int) -> nn.Module:
    """From the fused embeddings of so many parties to the task's outputs."""
    with seeded(config.run.seed, "vertical", "top"):
        return top_form(config.vertical.top, fusion.width(config.vertical.embedding, parties), task)


def top_form(hidden: Sequence[int] | None, width: int, task: Task) -> nn.Module:
    """The same from a fused embedding of `width`, with weights as they come."""
    top = build_top(hidden, width, task.output_shape[0])
    return top if (output := task.output_layer()) is None else nn.Sequential(top, output)
