"""The stages before training: who takes part, which entities the parties have in common."""

from collections.abc import Mapping

import numpy as np
import torch

from fedapp.client.party.learners import build_learner
from fedapp.client.party.party_run import PartyRun
from fedapp.client.party.session_member import LastBatch, SessionMember
from fedapp.common.errors import ConfigError, DataError
from fedapp.common.seeding import derive_seed
from fedapp.vertical.identities import check_unique, is_enumerable, joined
from fedapp.vertical.matching import Blinded, Distinct, Rows, double, hide, hide_distinct, match
from fedapp.vertical.orders import Order, PartyAnswer, Payload
from fedapp.vertical.party_error import PartyError
from fedapp.vertical.sealing import agree, new_private, open_sealed, public_of, seal
from fedapp.vertical.session import Party, signed

__all__ = [
    "align",
    "aligned",
    "blind",
    "double_blind",
    "find_matches",
    "found_places",
    "hello",
    "opened",
    "sealed",
    "tell_rows",
]


def hello(run: PartyRun, name: str, client: int, session: str) -> tuple[SessionMember, PartyAnswer]:
    """A new session: fresh keys, and what the others may know of this party."""
    table, private = run.table(name), new_private()
    labels = name == run.options.label_party
    if not labels and not table.features:
        raise DataError(f"party {name}: has no columns")
    if not len(table):
        raise DataError(f"party {name}: has no rows")
    me = Party(name, client, labels, len(table.features), len(table), public_of(private))
    me = signed(me, run.identity, session, run.digest)
    facts = {} if run.on_device else {"data": table.sha256()}
    return SessionMember(session, private, me), PartyAnswer(name, joined=me, facts=facts)


def blind(run: PartyRun, member: SessionMember, order: Order) -> PartyAnswer:
    """Take the session's view, and send each other end of a pair this party's blinded identities."""
    view, me = order.view, member.me.name
    if view is None or member.view is not None:
        raise PartyError("wrong stage", "the parties of a session are told once")
    view.check(member.me, run.digest, run.options.label_party)
    if tuple(party.name for party in view.parties) != run.options.names:
        raise PartyError("forged", f"the session must be of all parties of the config: {', '.join(run.options.names)}")
    view.check_signed(run.peers, required=run.on_device)
    run.options.fusion.check_parties(view.others)
    member.view = view
    member.channels = {p.name: agree(member.private, p.key, view.digest) for p in view.parties if p.name != me}
    others = view.others if member.me.labels else (view.label_party,)
    payloads, enumerable = [], []
    for other in others:
        identities = _identities(run, me, other)
        if is_enumerable(sorted(set(identities))):
            enumerable.append(other)
        pair = "|".join((view.label_party, other if member.me.labels else me))
        if member.me.labels:
            distinct = hide_distinct(identities, pair)
            member.hidden[other], points = distinct, distinct.blinded.points
        else:
            check_unique(identities, f"party {me}")
            hidden = hide(identities, pair)
            member.hidden[other], points = hidden, hidden.points
        payloads.append(sealed(member, order, other, "blinded", points))
    return PartyAnswer(me, payloads=payloads, facts={"enumerable": " ".join(enumerable)})


def _identities(run: PartyRun, me: str, other: str) -> list[str]:
    """Of each row, as `other` would write it; "" where it has none."""
    cells = run.table(me).key(other)
    found = [joined(row, run.config.vertical.normalise) for row in zip(*cells, strict=True)]
    if (count := len(set(found) - {""})) > run.most:
        raise ConfigError(f"max-identities: party {me} has {count} identities, and blinds {run.most} at most")
    if not any(found):
        raise DataError(f"party {me}: no row has an identity to match with {other}")
    return found


def double_blind(run: PartyRun, member: SessionMember, order: Order) -> PartyAnswer:
    """A party without labels raises the label party's points once more."""
    label_party = member.seen().label_party
    hidden = member.hidden.get(label_party)
    if not isinstance(hidden, Blinded):
        raise PartyError("wrong stage", "this party has no identities to match")
    points = opened(member, order, label_party, "blinded")
    doubled = double(points, hidden, most=run.most)
    return PartyAnswer(member.me.name, payloads=[sealed(member, order, label_party, "doubled", doubled)])


def find_matches(run: PartyRun, member: SessionMember, order: Order) -> PartyAnswer:
    """The label party finds what it has in common with each other party, chooses the entities to train on and to hold
    out, and tells each party which of its rows these are."""
    table = run.table(member.me.name)
    places, figures = found_places(run, member, order)
    for other in places:
        if (found := figures[f"matched/{other}"]) < run.config.vertical.min_matches:
            raise ConfigError(
                f"vertical.min_matches={run.config.vertical.min_matches}: {member.me.name} and {other} have {found}"
                " identities in common; check the key columns and vertical.normalise, or lower it"
            )
    chosen = np.arange(len(table))
    if run.config.vertical.unmatched == "drop":
        chosen = chosen[np.all([place >= 0 for place in places.values()], axis=0)]
    member.rows = _split(run, member, chosen)
    payloads = tell_rows(member, order, places)
    member.hidden, member.last = {}, LastBatch()
    member.learner = build_learner(run, member)
    counts = {"train": len(member.rows["train"]), "test": len(member.rows["test"]), "parameters": _parameters(member)}
    return PartyAnswer(member.me.name, payloads=payloads, figures={**figures, **counts})


def found_places(run: PartyRun, member: SessionMember, order: Order) -> tuple[dict[str, Rows], dict[str, float]]:
    """By other party, its row of each row of the label party, -1 for none; and how many these are."""
    view = member.seen()
    places: dict[str, Rows] = {}
    figures: dict[str, float] = {}
    for other in view.others:
        hidden = member.hidden.get(other)
        if not isinstance(hidden, Distinct):
            raise PartyError("wrong stage", "this party has no identities to match")
        points, doubled = (opened(member, order, other, purpose) for purpose in ("blinded", "doubled"))
        places[other] = match(hidden, points, doubled, most=run.most)
        found = len(np.unique(places[other][places[other] >= 0]))
        figures |= {f"matched/{other}": found, f"rows/{other}": int((places[other] >= 0).sum())}
    return places, figures


def tell_rows(member: SessionMember, order: Order, places: Mapping[str, Rows]) -> list[Payload]:
    """For each other party, which of its rows are meant: of the entities to train on, then of the others."""
    train, test = member.rows["train"].numpy(), member.rows["test"].numpy()
    payloads = []
    for other in member.seen().others:
        content = np.concatenate([[len(train)], places[other][train], places[other][test]]).astype(np.int64)
        payloads.append(sealed(member, order, other, "rows", content.tobytes()))
    return payloads


def _split(run: PartyRun, member: SessionMember, chosen: Rows) -> dict[str, torch.Tensor]:
    """The label party's rows to train on and to hold out. Their order is a secret function of its own data, so that who
    knows the seed learns nothing from the order of the batches."""
    table = run.table(member.me.name)
    assert table.held_out is not None
    seed = derive_seed(run.config.run.seed, "entities", table.sha256())
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed))
    rows = torch.from_numpy(chosen.astype(np.int64))[order]
    held_out = table.held_out[rows]
    found = {"train": rows[~held_out], "test": rows[held_out]}
    for kind, what in (("train", "to train on"), ("test", "to hold out")):
        if len(found[kind]) < 2:
            raise DataError(f"party {table.name}: {len(found[kind])} matched entities {what}; two or more are needed")
    return found


def align(run: PartyRun, member: SessionMember, order: Order) -> PartyAnswer:
    """A party without labels takes which of its rows are meant."""
    member.rows = aligned(member, order)
    member.hidden, member.last = {}, LastBatch()
    member.learner = build_learner(run, member)
    return PartyAnswer(member.me.name, figures={"parameters": _parameters(member)})


def aligned(member: SessionMember, order: Order) -> dict[str, torch.Tensor]:
    """The rows that the label party has told this one. Raises PartyError for those that it does not have."""
    label_party = member.seen().label_party
    hidden = member.hidden.get(label_party)
    if not isinstance(hidden, Blinded):
        raise PartyError("wrong stage", "this party has no identities to match")
    content = opened(member, order, label_party, "rows")
    if len(content) % 8 or len(content) < 8:
        raise PartyError("wrong length", f"{len(content)} bytes of row numbers")
    count, *_ = values = np.frombuffer(content, np.int64)
    places, most = values[1:], len(hidden.rows)
    if not 0 <= count <= len(places) or ((places < -1) | (places >= most)).any():
        raise PartyError("forged", "row numbers that this party does not have")
    rows = torch.from_numpy(np.where(places >= 0, hidden.rows[places], -1))
    return {"train": rows[:count], "test": rows[count:]}


def _parameters(member: SessionMember) -> int:
    return sum(parameter.numel() for parameter in member.trains().part.parameters)


def sealed(member: SessionMember, order: Order, other: str, purpose: str, content: bytes) -> Payload:
    """For `other` alone, under the order's number."""
    channel = member.channels[other]
    return Payload(other, purpose, order.number, seal(channel, member.me.name, other, purpose, order.number, content))


def opened(member: SessionMember, order: Order, other: str, purpose: str) -> bytes:
    """What `other` has sent for `purpose`, since this party's last order. Raises PartyError where it is not there, or
    is an old one."""
    found = [p for p in order.payloads[member.me.name] if (p.party, p.purpose) == (other, purpose)]
    if len(found) != 1 or other not in member.channels:
        raise PartyError("wrong stage", f"{len(found)} payloads ({purpose}) of {other} in place of one")
    (payload,) = found
    if payload.number >= order.number:
        raise PartyError("replayed", f"a payload ({purpose}) of {other} out of order")
    return open_sealed(member.channels[other], other, member.me.name, purpose, payload.number, payload.sealed)
