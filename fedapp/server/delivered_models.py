"""Models as SuperNodes get them under downlink=differences: those from the last one that a SuperNode has said it has.

After each round the server adopts the model that the difference decodes to, so that all have the same bits. A SuperNode
that was away for some rounds gets the chain of differences, or the whole model where that takes fewer bytes; one that
does not have what it is thought to have says so, and gets the whole at once.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from logging import INFO, WARNING
from typing import Any

from flwr.app import Error, Message, RecordDict
from torch import Tensor

from fedapp.common.logger import log
from fedapp.common.seeding import derive_seed
from fedapp.server.exchange import Exchange
from fedapp.server.reply_sizes import without_content
from fedapp.server.sent_models import SentModels
from fedapp.updates.difference_codec import DifferenceCodec, NoDifferenceError
from fedapp.wire.differences import MOST, Differences, give_differences, lacks_base, says_lacks, unpack_has
from fedapp.wire.model import GlobalModel
from fedapp.wire.records import ARRAYS, content_bytes

__all__ = ["DeliveredModels"]


@dataclass(frozen=True)
class Step:
    """From the model of fingerprint `base` to that of `model`."""

    base: str
    model: str
    packed: Tensor


class DeliveredModels(SentModels):
    """`codec`: of differences. `seed`: the run's."""

    def __init__(self, codec: DifferenceCodec, seed: int) -> None:
        self._codec, self._seed = codec, seed
        self._steps: list[Step] = []  # the last ones, each from the model of the one before
        self._held: dict[int, str] = {}  # by SuperNode, the fingerprint of the model that it says it has
        self._unbooked = 0

    def adopted(self, before: GlobalModel, after: GlobalModel, server_round: int) -> GlobalModel:
        try:
            packed = self._codec.encode(before.state, after.state, derive_seed(self._seed, "downlink", server_round))
            found = GlobalModel(self._codec.apply(before.state, packed))
        except NoDifferenceError as error:
            log(WARNING, "round %d: all SuperNodes get the whole model next: %s", server_round, error)
            self._steps.clear()
            return after
        self._steps.append(Step(before.sha256, found.sha256, packed))
        while self._steps and (len(self._steps) > MOST or self._bytes(self._steps) >= content_of(found)):
            del self._steps[0]
        return found

    def exchanged(
        self, exchange: Exchange, messages: Iterable[Message], timeout: float, model: GlobalModel
    ) -> Iterator[Message]:
        given: dict[int, Message] = {}  # by SuperNode, what it got differences in the place of
        messages = list(messages)
        stubs = {message.metadata.dst_node_id: without_content(message) for message in messages}
        for message in messages:
            content, node = message.content, message.metadata.dst_node_id
            if content.get(ARRAYS) is model.arrays and (found := self._differences(node, model)) is not None:
                about = message.metadata
                whole = RecordDict(dict(content.items()))
                given[node] = Message(whole, node, about.message_type, ttl=about.ttl, group_id=about.group_id)
                self._unbooked -= give_differences(content, found)

        def again(reply: Message) -> Message | None:
            node = reply.metadata.src_node_id
            if reply.has_error() or node not in given or not lacks_base(reply.content):
                return None
            log(INFO, "SuperNode %d does not have the model that it is thought to have: it gets the whole", node)
            self._held.pop(node, None)
            whole = given.pop(node)
            self._unbooked += content_bytes(whole.content)
            return whole

        for reply in exchange(messages, timeout, again):
            node = reply.metadata.src_node_id
            if not reply.has_error() and says_lacks(reply.content):
                reply = Message(Error(1, "it says that it lacks a model, and must not here"), reply_to=stubs[node])
            if reply.has_error():
                self._held.pop(node, None)  # nobody knows what it has: the next message brings the whole
            elif unpack_has(reply.content) == model.sha256:
                self._held[node] = model.sha256
            yield reply

    def unbooked(self) -> int:
        found, self._unbooked = self._unbooked, 0
        return found

    def _differences(self, node: int, model: GlobalModel) -> Differences | None:
        """From what a SuperNode has to `model`; None where it must get the whole."""
        base = self._held.get(node)
        if base is None:
            return None
        if base == model.sha256:
            return Differences(base, base, ())
        if not self._steps or self._steps[-1].model != model.sha256:
            return None
        for number, step in enumerate(self._steps):
            if step.base == base:
                return Differences(base, model.sha256, tuple(later.packed for later in self._steps[number:]))
        return None

    @staticmethod
    def _bytes(steps: Iterable[Step]) -> int:
        return sum(step.packed.numel() for step in steps)

    # --- going on from a checkpoint ----------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        return {f"difference-{number:02d}": step.packed for number, step in enumerate(self._steps)}

    def state_dict(self, nodes: Mapping[int, int]) -> dict[str, Any]:
        held = {str(client): self._held[node] for client, node in nodes.items() if node in self._held}
        return {"steps": [[step.base, step.model] for step in self._steps], "held": held}

    def load(self, saved: Mapping[str, Any], tensors: Mapping[str, Tensor], nodes: Mapping[int, int]) -> None:
        if not saved:
            return
        packed = [tensors[name] for name in sorted(tensors) if name.startswith("difference-")]
        rows = zip(saved["steps"], packed, strict=True)
        self._steps = [Step(base, model, content) for (base, model), content in rows]
        held = saved["held"]
        self._held = {node: held[str(client)] for client, node in nodes.items() if str(client) in held}


def content_of(model: GlobalModel) -> int:
    """Bytes of a whole model in a message."""
    return sum(len(array.data) for array in model.arrays.values())
