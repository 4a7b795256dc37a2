"""Models as SuperNodes get them where every message brings the whole."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flwr.app import Message
from torch import Tensor

from fedapp.server.exchange import Exchange
from fedapp.wire.model import GlobalModel

__all__ = ["SentModels"]


class SentModels:
    """Nothing is done, and nothing is kept; `delivered_models.py` does more."""

    def adopted(self, before: GlobalModel, after: GlobalModel, server_round: int) -> GlobalModel:
        """What the run goes on with in the place of `after`."""
        return after

    def exchanged(
        self, exchange: Exchange, messages: Iterable[Message], timeout: float, model: GlobalModel
    ) -> Iterator[Message]:
        """Replies to messages that bring `model`."""
        return exchange(messages, timeout)

    def unbooked(self) -> int:
        """By how many bytes more than whole models to all went out since this was last asked; mostly fewer."""
        return 0

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint has of it, beside `state_dict`."""
        return {}

    def state_dict(self, nodes: Mapping[int, int]) -> dict[str, Any]:
        """`nodes`: by client, its SuperNode, which may have another number in a resumed run."""
        return {}

    def load(self, saved: Mapping[str, Any], tensors: Mapping[str, Tensor], nodes: Mapping[int, int]) -> None:
        """Go on from what `tensors` and `state_dict` gave."""
