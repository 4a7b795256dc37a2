"""The stages of training: batches, evaluation after an epoch, and what is kept."""

import math

import numpy as np
import torch
from torch import Tensor

from fedapp.client.party.kept_parts import about_part, restore_snapshot, save_part, save_snapshot
from fedapp.client.party.label_ledger import spend_labels
from fedapp.client.party.matching_stages import opened, sealed
from fedapp.client.party.party_run import PartyRun
from fedapp.client.party.session_member import LastBatch, SessionMember
from fedapp.common.seeding import generator
from fedapp.learning.training import minibatches
from fedapp.vertical.orders import Order, PartyAnswer, Payload
from fedapp.vertical.parts import Learner
from fedapp.vertical.party_error import PartyError
from fedapp.vertical.saved_part import part_sha256

__all__ = [
    "embedding_payload",
    "judge",
    "judge_labelled",
    "keep_result",
    "received",
    "restore",
    "train",
    "train_labelled",
]

Seed = tuple[int | str, ...]


def train(run: PartyRun, member: SessionMember, order: Order) -> PartyAnswer:
    """A party without labels: a step by the gradient of the batch before, then the embeddings of this one."""
    learner = member.trains()
    _apply(run, member, order)
    rows = member.rows["train"][_batch(run, member, order.epoch, order.batch)]
    assert learner.bottom is not None
    member.embedded = learner.bottom.embed(rows, _seed(run, member, order.epoch, order.batch))
    member.last = LastBatch(order.number, order.epoch, order.batch)
    return PartyAnswer(member.me.name, payloads=[embedding_payload(run, member, order, member.embedded.values)])


def _apply(run: PartyRun, member: SessionMember, order: Order) -> None:
    """A step by the gradient that came with the order, unless it was taken before: it is then sent again because
    somebody else did not reply."""
    label_party, last = member.seen().label_party, member.last
    payload = next((p for p in order.payloads[member.me.name] if p.purpose == "gradient"), None)
    if payload is None or payload.number <= last.number or not last.batch:
        return
    learner = member.trains()
    assert learner.bottom is not None
    batch = _batch(run, member, last.epoch, last.batch)
    shape = (len(batch), run.config.vertical.embedding)
    gradient = _floats(opened(member, order, label_party, "gradient"), shape)
    rows, seed = member.rows["train"][batch], _seed(run, member, last.epoch, last.batch)
    embedded, member.embedded = member.embedded, None  # its parameters change with the first step
    for _ in range(run.config.vertical.local_steps):
        learner.part.step(learner.bottom.gradients(learner.part, rows, gradient, seed, embedded), order.lr_factor)
        embedded = None
    member.last = LastBatch(order.number)


def train_labelled(run: PartyRun, member: SessionMember, order: Order) -> PartyAnswer:
    """The label party: the loss of a batch, a step of its own, and for each other party its gradient. A batch that it
    has trained on is answered by the same gradients once more."""
    learner, last = member.trains(), member.last
    if (last.epoch, last.batch) != (order.epoch, order.batch):
        _step_labelled(run, member, learner, order)
    member.last = LastBatch(order.number, order.epoch, order.batch)
    payloads = []
    for other in member.seen().others:
        gradient = run.options.fusion.gradient_of(other, member.gradients)
        payloads.append(sealed(member, order, other, "gradient", gradient.float().numpy().tobytes()))
    return PartyAnswer(member.me.name, payloads=payloads)


def _step_labelled(run: PartyRun, member: SessionMember, learner: Learner, order: Order) -> None:
    assert learner.head is not None
    _pay(run, member)
    batch = _batch(run, member, order.epoch, order.batch)
    rows, targets = member.rows["train"][batch], member.rows["targets"][batch]
    others = received(run, member, order, len(batch))
    seed, sent = _seed(run, member, order.epoch, order.batch), None
    for _ in range(run.config.vertical.local_steps):
        learner.part.net.train()
        own = None
        if learner.bottom is not None:
            own = member.me.name, learner.bottom.forward_seeded(rows, seed)
        loss, gradients, of_received = learner.head.gradients(learner.part, own, others, targets)
        if not math.isfinite(loss):
            raise PartyError("out of range", "the loss is not finite; lower optimizer.lr")
        if sent is None:  # the others' are of the model that they have embedded for
            sent = of_received
            total, seen = member.losses if member.last.epoch == order.epoch else (0.0, 0)
            member.losses = total + loss * len(batch), seen + len(batch)
        learner.part.step(gradients, order.lr_factor)
    assert sent is not None
    privacy = run.options.label_privacy
    member.gradients = {name: privacy.gradient(gradient, targets) for name, gradient in sent.items()}


def _pay(run: PartyRun, member: SessionMember) -> None:
    """Into the label party's ledger, before its randomised labels are trained on. Raises ConfigError where they cost
    more than its operator allows."""
    epsilon, folder = run.options.label_privacy.budget, run.ledger_folder
    targets = member.rows["targets"]
    if epsilon is not None and folder is not None and member.paid is not targets:
        spend_labels(folder, targets, epsilon, run.most_label_epsilon)
        member.paid = targets


def judge(run: PartyRun, member: SessionMember, order: Order) -> PartyAnswer:
    """A party without labels, at the end of an epoch: the last step, the embeddings of the held-out entities, and a
    snapshot."""
    learner = member.trains()
    _apply(run, member, order)
    member.last = LastBatch(order.number)
    assert learner.bottom is not None
    payload = embedding_payload(run, member, order, learner.bottom.judge(member.rows["test"]))
    return PartyAnswer(member.me.name, payloads=[payload], facts=_snapshot(run, member, order))


def judge_labelled(run: PartyRun, member: SessionMember, order: Order) -> PartyAnswer:
    """The label party: loss and metrics on the held-out entities, the mean training loss, and a snapshot."""
    learner, task = member.trains(), run.options.task
    assert learner.head is not None
    table, rows = run.table(member.me.name), member.rows["test"]
    assert table.targets is not None
    learner.part.net.eval()
    parts = received(run, member, order, len(rows))
    if learner.bottom is not None:
        parts[member.me.name] = learner.bottom.judge(rows)
    with torch.no_grad():
        outputs, targets = learner.head.outputs(parts), table.targets[rows]
        figures = {"test_loss": float(task.loss(outputs, targets))}
    figures |= {f"test_{name}": metric(outputs, targets) for name, metric in task.metrics.items()}
    total, seen = member.losses
    figures |= {"train_loss": total / seen if seen else math.nan}
    member.last, member.gradients = LastBatch(order.number), {}
    return PartyAnswer(member.me.name, figures=figures, facts=_snapshot(run, member, order))


def _snapshot(run: PartyRun, member: SessionMember, order: Order) -> dict[str, str]:
    state = member.trains().part.state()
    if run.options.label_privacy.random and member.me.labels:  # those that were drawn: never others for the same labels
        state["targets"] = member.rows["targets"]
    if order.run and (folder := run.kept(member.me.name, order.run)) is not None:
        save_snapshot(folder, order.epoch, state, run.config.run.checkpoint_every)
    return {"sha256": part_sha256(state)}


def restore(run: PartyRun, member: SessionMember, order: Order) -> PartyAnswer:
    """Go on from the part as it was after an epoch."""
    state = restore_snapshot(run.kept(member.me.name, order.run), order.epoch)
    member.trains().part.load(state)
    member.embedded = None
    if "targets" in state:
        if state["targets"].shape != member.rows["train"].shape:
            raise PartyError("lost state", "the matched entities are not those that this run began with")
        member.rows = {**member.rows, "targets": state["targets"].clone()}
    member.last, member.gradients, member.losses = LastBatch(order.number), {}, (0.0, 0)
    return PartyAnswer(member.me.name, facts={"sha256": part_sha256(state)})


def keep_result(run: PartyRun, member: SessionMember, order: Order) -> PartyAnswer:
    """The part of the finished model, where this party keeps one."""
    state = member.trains().part.state()
    sha256 = part_sha256(state)
    folder = run.kept(member.me.name, order.run) if order.run else None
    if folder is not None:
        save_part(folder, state, about_part(run, member, order.run, sha256))
    return PartyAnswer(member.me.name, facts={"sha256": sha256}, figures={"kept": float(folder is not None)})


def _batch(run: PartyRun, member: SessionMember, epoch: int, batch: int) -> Tensor:
    """The places of a batch's entities among those to train on: a function of seed, epoch and their number."""
    count, size = len(member.rows["train"]), run.config.train.batch_size
    known = member.batches
    if known is None or known[0] != epoch:
        random = generator(run.config.run.seed, "batches", epoch)
        known = member.batches = epoch, list(minibatches(count, size, random))
    if not 1 <= batch <= len(known[1]):
        raise PartyError("wrong stage", f"batch {batch} of {len(known[1])}")
    return known[1][batch - 1]


def _seed(run: PartyRun, member: SessionMember, epoch: int, batch: int) -> Seed:
    """Of dropout."""
    return run.config.run.seed, "dropout", member.me.name, epoch, batch


def embedding_payload(run: PartyRun, member: SessionMember, order: Order, values: Tensor) -> Payload:
    """For the label party, under masks shared with the other parties without labels."""
    view = member.seen()
    channels = {other: member.channels[other] for other in view.others if other != member.me.name}
    content = run.options.fusion.packed(values, member.me.name, channels, order.number)
    return sealed(member, order, view.label_party, "embedding", content)


def received(run: PartyRun, member: SessionMember, order: Order, count: int) -> dict[str, Tensor]:
    """The others' embeddings, all of the same exchange and later than this party's last one."""
    view, payloads = member.seen(), order.payloads[member.me.name]
    numbers = {payload.number for payload in payloads if payload.purpose == "embedding"}
    if len(numbers) != 1 or not member.last.number < min(numbers):
        raise PartyError("replayed", "embeddings of an earlier exchange, or of several")
    contents = {other: opened(member, order, other, "embedding") for other in view.others}
    return run.options.fusion.unpacked(contents, (count, run.config.vertical.embedding))


def _floats(content: bytes, shape: tuple[int, int]) -> Tensor:
    if len(content) != 4 * shape[0] * shape[1]:
        raise PartyError(
            "wrong length", f"{len(content)} bytes in place of a gradient of {shape[0]} x {shape[1]} values"
        )
    values = torch.from_numpy(np.frombuffer(content, np.float32).copy()).view(shape)
    if not values.isfinite().all():
        raise PartyError("out of range", "a gradient is not finite; lower optimizer.lr")
    return values
