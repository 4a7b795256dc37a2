"""The stages of a prediction by the parts that parties have kept: new rows are matched, embedded, and predicted at the
label party, which keeps what comes of it to itself."""

import logging

import numpy as np
import torch

from fedapp.client.party.matching_stages import aligned, found_places, tell_rows
from fedapp.client.party.party_run import PartyRun
from fedapp.client.party.session_member import LastBatch, SessionMember
from fedapp.client.party.training_stages import embedding_payload, received
from fedapp.common.errors import ConfigError
from fedapp.common.files import write_atomically
from fedapp.inference.predict import Predictions
from fedapp.inference.saved_parties import notes_of
from fedapp.vertical.orders import Order, PartyAnswer
from fedapp.vertical.saved_part import SavedPart
from fedapp.vertical.split_model import Bottom, LabelHead

__all__ = ["align_new", "embed_new", "find_new", "predict_new"]

log = logging.getLogger("flwr")


def find_new(run: PartyRun, member: SessionMember, order: Order) -> PartyAnswer:
    """The label party finds which of its new rows each other party has, and tells each party which of its rows are
    meant."""
    me, part = member.me.name, run.part(member.me.name)
    places, figures = found_places(run, member, order)
    for other in places:
        if not figures[f"matched/{other}"]:
            raise ConfigError(f"vertical.predict: {me} and {other} have no identity in common in their new rows")
    chosen = np.arange(len(run.table(me)))
    if part.about.unmatched == "drop":
        chosen = chosen[np.all([place >= 0 for place in places.values()], axis=0)]
    if not len(chosen):
        raise ConfigError("vertical.predict: no new row has a match at every party, and vertical.unmatched=drop")
    for line in notes_of(
        run.new_file, {other: torch.from_numpy(p) for other, p in places.items()}, run.numbers(me), part
    ):
        log.info("party %s: %s", me, line)
    rows = torch.from_numpy(chosen.astype(np.int64))
    member.rows = {"train": rows[:0], "test": rows}
    member.hidden, member.last = {}, LastBatch()
    payloads = tell_rows(member, order, places)
    return PartyAnswer(
        me, payloads=payloads, figures={**figures, "train": 0, "test": len(rows), "parameters": _size(part)}
    )


def align_new(run: PartyRun, member: SessionMember, order: Order) -> PartyAnswer:
    """A party without labels takes which of its new rows are meant."""
    member.rows = aligned(member, order)
    member.hidden, member.last = {}, LastBatch()
    return PartyAnswer(member.me.name, figures={"parameters": _size(run.part(member.me.name))})


def embed_new(run: PartyRun, member: SessionMember, order: Order) -> PartyAnswer:
    """A party without labels: the embeddings of its new rows, for the label party, masked as in training."""
    name = member.me.name
    values = _bottom(run, name).judge(member.rows["test"])
    return PartyAnswer(name, payloads=[embedding_payload(run, member, order, values)])


def predict_new(run: PartyRun, member: SessionMember, order: Order) -> PartyAnswer:
    """The label party: the predictions, into a file of its own. The server learns how many there are."""
    name = member.me.name
    part, rows, folder = run.part(name), member.rows["test"], run.kept(name, run.predicts)
    assert part.top is not None
    assert folder is not None
    parts = received(run, member, order, len(rows))
    if part.bottom is not None:
        parts[name] = _bottom(run, name).judge(rows)
    with torch.no_grad():
        outputs = LabelHead(part.top, part.fusion, part.task.loss).outputs(parts)
        values = part.task.predictions(outputs)
    numbers = run.numbers(name)
    found = Predictions(tuple(str(numbers[row]) for row in rows.tolist()), part.task, values)
    path = folder / f"predictions-{member.session}.csv"
    write_atomically(path, found.to_csv(), mode=0o600)
    log.info("party %s: %d predictions: %s", name, len(rows), path)
    return PartyAnswer(name, figures={"predicted": len(rows)})


def _bottom(run: PartyRun, name: str) -> Bottom:
    part = run.part(name)
    assert part.bottom is not None
    return Bottom(part.bottom, run.table(name).inputs, part.about.embedding)


def _size(part: SavedPart) -> int:
    nets = [net for net in (part.bottom, part.top) if net is not None]
    return sum(parameter.numel() for net in nets for parameter in net.parameters())
