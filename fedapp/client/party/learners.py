"""From a party's table and rows to what it trains."""

from torch import Tensor, nn

from fedapp.client.party.party_run import PartyRun
from fedapp.client.party.session_member import Learner, SessionMember
from fedapp.common.errors import DataError
from fedapp.data.party_table import PartyTable
from fedapp.data.shards import moments
from fedapp.learning.build import optimizer_factory
from fedapp.models.input_layer import InputLayer
from fedapp.vertical.networks import bottom_network, top_network
from fedapp.vertical.split_model import Bottom, LabelHead, Part

__all__ = ["build_learner"]


def build_learner(run: PartyRun, member: SessionMember) -> Learner:
    """A party's part at its beginning, a function of seed, party and data. Raises FedappError where its model does not
    fit."""
    name, config = member.me.name, run.config
    table, rows = run.table(name), member.rows["train"]
    parts: dict[str, nn.Module] = {}
    bottom = None
    if table.features:
        net = bottom_network(config, table.name, table.features)
        layer = net.get_submodule("input")
        assert isinstance(layer, InputLayer)
        _scale(layer, table, rows)
        bottom, parts["bottom"] = Bottom(net, table.inputs, config.vertical.embedding), net
    head = None
    if member.me.labels:
        assert table.targets is not None
        options = run.options
        top = top_network(config, options.task, options.fusion, _fused(run, table))
        head = LabelHead(top, options.fusion, options.task.loss)
        if "targets" not in member.rows:
            classes = len(run.options.task.schema.classes)
            drawn = run.options.label_privacy.training_targets(table.targets[rows], classes)
            member.rows = {**member.rows, "targets": drawn}
        targets = member.rows["targets"]
        if (output := run.options.task.output_layer()) is not None and output.width:
            _, mean, squares = (value for value in _moments_of(output.values(targets)))
            output.set_statistics(mean, (squares / max(len(targets), 1)).sqrt())
        parts["top"] = head.top
    part = Part(nn.ModuleDict(parts), optimizer_factory("optimizer", config.optimizer))
    return Learner(part, bottom, head)


def _fused(run: PartyRun, labelled: PartyTable) -> int:
    """How many parties have an embedding: all, but for a label party without columns."""
    return len(run.options.names) - (not labelled.features)


def _scale(layer: InputLayer, table: PartyTable, rows: Tensor) -> None:
    """Scale inputs by the party's own means and deviations over the training entities."""
    known = rows[rows >= 0]
    if not len(known):
        raise DataError(f"party {table.name}: none of its rows is among the training entities")
    count, mean, squares = _moments_of(table.inputs[known])
    if (count == 0).any():
        column = table.features[int((count == 0).nonzero()[0])]
        raise DataError(f"party {table.name}: column {column!r} has no value in any training entity; leave it out")
    layer.set_statistics(mean.float(), (squares / count).sqrt().float())


def _moments_of(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    found = moments(values)
    return found.count, found.mean, found.squares
