"""From a party's table and its rows to the part of the model that it trains."""

from dataclasses import dataclass

from torch import Tensor, nn

from fedapp.common.errors import DataError
from fedapp.config import Config
from fedapp.data.party_table import PartyTable
from fedapp.data.shards import moments
from fedapp.learning.build import optimizer_factory
from fedapp.models.input_layer import InputLayer
from fedapp.vertical.networks import bottom_network, top_network
from fedapp.vertical.split_model import Bottom, LabelHead, Part
from fedapp.vertical.vertical_options import VerticalOptions

__all__ = ["Learner", "build_part"]


@dataclass
class Learner:
    """What trains. `bottom`: None at a label party without columns; `head`: at the label party."""

    part: Part
    bottom: Bottom | None
    head: LabelHead | None = None


def build_part(
    config: Config, options: VerticalOptions, table: PartyTable, rows: Tensor, targets: Tensor | None
) -> Learner:
    """A party's part at its beginning, a function of seed, party and data. `rows`: the party's of each training entity;
    `targets`: theirs, at the label party. Raises FedappError where its model does not fit."""
    parts: dict[str, nn.Module] = {}
    bottom, head = None, None
    if table.features:
        net = bottom_network(config, table.name, table.features)
        layer = net.get_submodule("input")
        assert isinstance(layer, InputLayer)
        _scale(layer, table, rows)
        bottom, parts["bottom"] = Bottom(net, table.inputs, config.vertical.embedding), net
    if targets is not None:
        fused = len(options.names) - (not table.features)  # a label party without columns has no embedding
        top = top_network(config, options.task, options.fusion, fused)
        head = LabelHead(top, options.fusion, options.task.loss)
        if (output := options.task.output_layer()) is not None and output.width:
            _, mean, squares = _moments(output.values(targets))
            output.set_statistics(mean, (squares / max(len(targets), 1)).sqrt())
        parts["top"] = top
    part = Part(nn.ModuleDict(parts), optimizer_factory("optimizer", config.optimizer))
    return Learner(part, bottom, head)


def _scale(layer: InputLayer, table: PartyTable, rows: Tensor) -> None:
    """Scale inputs by the party's own means and deviations over the training entities."""
    known = rows[rows >= 0]
    if not len(known):
        raise DataError(f"party {table.name}: none of its rows is among the training entities")
    count, mean, squares = _moments(table.inputs[known])
    if (count == 0).any():
        column = table.features[int((count == 0).nonzero()[0])]
        raise DataError(f"party {table.name}: column {column!r} has no value in any training entity; leave it out")
    layer.set_statistics(mean.float(), (squares / count).sqrt().float())


def _moments(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    found = moments(values)
    return found.count, found.mean, found.squares
