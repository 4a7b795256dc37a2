"""A message whose model is given as the differences from one that its SuperNode has, and what a reply says of it."""

import re
from dataclasses import dataclass

from flwr.app import ConfigRecord, RecordDict
from torch import Tensor

from fedapp.common.state_digest import State
from fedapp.wire.records import ARRAYS, arrays_to_state, content_bytes, state_to_arrays, tensor_bytes, text, whole

__all__ = [
    "MOST",
    "Differences",
    "brings_model",
    "bytes_if_whole",
    "give_differences",
    "lacks_base",
    "pack_has",
    "pack_lacks",
    "refuse_differences",
    "says_lacks",
    "unpack_differences",
    "unpack_has",
    "with_model",
]

DOWNLINK, DIFFERENCES = "downlink", "differences"
BASE, MODEL, SAVED, HAS, LACKS = "base", "model", "saved-bytes", "has", "lacks-base"
SHA256 = re.compile("[0-9a-f]{64}")
MOST = 64  # differences in a message


@dataclass(frozen=True)
class Differences:
    """`packed`: one vector of bytes for each step from the model of fingerprint `base` to that of `model`."""

    base: str
    model: str
    packed: tuple[Tensor, ...]


def give_differences(content: RecordDict, found: Differences) -> int:
    """Put differences in the place of a message's model. Returns how many bytes of tensors that saves."""
    before = tensor_bytes(content)
    del content[ARRAYS]
    content[DIFFERENCES] = state_to_arrays({str(number): packed for number, packed in enumerate(found.packed)})
    saved = before - tensor_bytes(content)
    content[DOWNLINK] = ConfigRecord({BASE: found.base, MODEL: found.model, SAVED: saved})
    return saved


def unpack_differences(content: RecordDict) -> Differences | None:
    """Those of a message; None where it brings a whole model. Raises ValueError, KeyError or TypeError if malformed."""
    if DOWNLINK not in content and DIFFERENCES not in content:
        return None
    config, arrays = content.config_records[DOWNLINK], content.array_records[DIFFERENCES]
    if ARRAYS in content:
        raise ValueError("downlink: a message with a whole model and differences")
    found = arrays_to_state(arrays, copy=False)
    if len(found) > MOST or list(found) != [str(number) for number in range(len(found))]:
        raise ValueError(f"downlink: expected 0 to {MOST} differences in order, got {len(found)}")
    base, model = (_fingerprint(config[name]) for name in (BASE, MODEL))
    return Differences(base, model, tuple(found.values()))


def brings_model(content: RecordDict) -> bool:
    """Whether a message brings a model, or differences."""
    return ARRAYS in content or DOWNLINK in content or DIFFERENCES in content


def refuse_differences(content: RecordDict) -> None:
    """Raises ValueError for a message that brings differences."""
    if DOWNLINK in content or DIFFERENCES in content:
        raise ValueError("downlink: differences in a run whose messages bring whole models")


def with_model(content: RecordDict, state: State) -> RecordDict:
    """A message with a whole model in the place of differences."""
    rest = {name: record for name, record in content.items() if name not in (DOWNLINK, DIFFERENCES)}
    return RecordDict({ARRAYS: state_to_arrays(state), **rest})


def bytes_if_whole(content: RecordDict) -> int:
    """`content_bytes` of a message, had it the whole model: what the size of its reply is judged by."""
    saved = content.config_records[DOWNLINK][SAVED] if DOWNLINK in content else 0
    return content_bytes(content) + whole(saved)


def pack_lacks() -> RecordDict:
    """The reply of a SuperNode that does not have the base of what it got."""
    return RecordDict({DOWNLINK: ConfigRecord({LACKS: True})})


def says_lacks(content: RecordDict) -> bool:
    """Whether a reply says that its SuperNode does not have that base, whatever else it says."""
    record = content.config_records.get(DOWNLINK)
    return record is not None and LACKS in record


def lacks_base(content: RecordDict) -> bool:
    """Whether it is that reply: one that says so and nothing else, which has no bytes to count."""
    record = content.config_records.get(DOWNLINK)
    return record is not None and len(content) == 1 and dict(record) == {LACKS: True}


def pack_has(content: RecordDict, fingerprint: str) -> None:
    """Say in a reply which model its SuperNode has stored."""
    content[DOWNLINK] = ConfigRecord({HAS: fingerprint})


def unpack_has(content: RecordDict) -> str:
    """What a reply says of that, which is removed from it; empty for nothing that could be."""
    record = content.config_records.get(DOWNLINK)
    if record is None:
        return ""
    del content[DOWNLINK]
    found = record.get(HAS)
    return found if isinstance(found, str) and SHA256.fullmatch(found) else ""


def _fingerprint(value: object) -> str:
    if not SHA256.fullmatch(found := text(value)):
        raise ValueError("downlink: expected the SHA-256 of a model")
    return found
