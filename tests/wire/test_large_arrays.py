"""No message nears what gRPC takes, however large a model is: Flower sends an array in pieces."""

import torch
from flwr.app import RecordDict
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
from flwr.supercore.grpc import GRPC_MAX_MESSAGE_LENGTH
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from fedapp.wire.records import ARRAYS, state_to_arrays


def test_an_array_is_sent_in_pieces_far_below_the_largest_message() -> None:
    """A model of a few pieces: their size depends on no model's."""
    state = {"net.weight": torch.arange(3_000_000, dtype=torch.float32)}  # 12 MB in one tensor
    content = RecordDict({ARRAYS: state_to_arrays(state)})
    parts = [item.deflate() for item in get_all_nested_objects(content).values()]
    assert sum(map(len, parts)) > 12_000_000
    headroom = 1 << 16
    assert max(map(len, parts)) <= FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE + headroom
    assert 100 * max(map(len, parts)) < GRPC_MAX_MESSAGE_LENGTH
