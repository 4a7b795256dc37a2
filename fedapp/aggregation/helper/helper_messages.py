"""Messages of sums through a helper.

| stage       | from, to            | holds                                        | reply                          |
|-------------|---------------------|----------------------------------------------|--------------------------------|
| helper-keys | server to helper    | the run                                      | its public keys, signed        |
| masked      | server to SuperNode | the instruction, the model, the helpers'     | the masked sum of its clients; |
|             |                     | keys                                         | by client its tags, signed     |
| helper-sum  | server to helper    | the tags of a sum; the masked sum, where the | the sum of masks, the sum, or  |
|             |                     | helper lays it bare; the model, where it is  | the next model, sealed         |
|             |                     | the clients'                                 |                                |
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import torch
from flwr.app import ConfigRecord, RecordDict

from fedapp.aggregation.helper.carrier import Bytes
from fedapp.aggregation.helper.run_keys import RunKeys
from fedapp.aggregation.helper.tags import Bound, Tag
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.aggregation.whole_numbers.record_values import bytes_of, clients_of, many_bytes
from fedapp.common.state_digest import State
from fedapp.wire.records import ARRAYS, arrays_to_state, count, number, numbers, state_to_arrays, text, whole
from fedapp.wire.reply import Reply, pack_reply, unpack_reply

__all__ = [
    *("HELPER_KEYS", "HELPER_SUM", "MASKED", "OFFER", "REPETITION", "RESULT", "RefusedError", "SumRequest", "Tags"),
    *(
        "carried_of",
        "pack_masked_sum",
        "pack_offer",
        "pack_refusal",
        "pack_run_keys",
        "pack_sum_reply",
        "pack_sum_request",
    ),
    *("unpack_masked_sum", "unpack_offer", "unpack_run_keys", "unpack_sum_reply", "unpack_sum_request"),
]

HELPER_KEYS, MASKED, HELPER_SUM = "helper-keys", "masked", "helper-sum"
REPETITION = "repetition"  # the kind of a refusal
SUM, OFFER, CARRIED = "helper-sum", "helpers", "carried"
RESULT = "result"  # the arrays of a helper's reply
Tags = tuple[tuple[Tag, ...], list[bytes]]  # of one client, and the keys of the helpers that they are for


def pack_run_keys(keys: RunKeys) -> ConfigRecord:
    return ConfigRecord({"key": keys.key, "public": keys.public, "signature": keys.signature})


def unpack_run_keys(record: ConfigRecord) -> RunKeys:
    """Raises KeyError, TypeError or ValueError where it is malformed, as every function here that unpacks."""
    return RunKeys(*(bytes_of(record[name]) for name in ("key", "public", "signature")))


def pack_offer(offered: Sequence[RunKeys], cohort: int) -> ConfigRecord:
    """`cohort`: how many clients are asked."""
    columns = {f"{name}s": [getattr(keys, name) for keys in offered] for name in ("key", "public", "signature")}
    return ConfigRecord({"cohort": cohort, **columns})


def unpack_offer(content: RecordDict) -> tuple[list[RunKeys], int]:
    record = content.config_records[OFFER]
    columns = [many_bytes(record[f"{name}s"]) for name in ("key", "public", "signature")]
    return [RunKeys(*row) for row in zip(*columns, strict=True)], count(record["cohort"])


def pack_masked_sum(
    reply: Reply, carried: Bytes | None, tags: Mapping[int, Sequence[Tag]], keys: Sequence[bytes] = ()
) -> RecordDict:
    """`tags`: by client that is in the sum, one for each helper; `keys`: theirs, in that order."""
    total = {CARRIED: torch.from_numpy(carried)} if carried is not None else {}
    content = pack_reply(Reply(reply.reports, {}, total))
    for client, own in tags.items():
        content[f"tags-{client}"] = ConfigRecord(
            {
                "weight": own[0].weight,
                "min-cohort": own[0].min_cohort,
                "sealed": [tag.sealed for tag in own],
                "signatures": [tag.signature for tag in own],
                "keys": list(keys),
            }
        )
    return content


def unpack_masked_sum(content: RecordDict) -> tuple[Reply, Bytes | None, dict[int, Tags]]:
    """The reports; the sum of the clients that are neither rejected nor have declined, and their tags."""
    reply = unpack_reply(content)
    good = [report.client for report in reply.reports if report.rejected is None and not report.declined]
    if reply.updates or set(reply.total) != ({CARRIED} if good else set()):
        raise ValueError(f"a reply with {len(reply.total) + len(reply.updates)} vectors of {len(good)} clients")
    found = {client: _tags(client, content.config_records[f"tags-{client}"]) for client in good}
    carried = reply.total[CARRIED].numpy() if good else None
    if carried is not None and (carried.dtype != "uint8" or carried.ndim != 1):
        raise ValueError("a masked vector that is no bytes")
    return Reply(reply.reports), carried, found


def _tags(client: int, record: ConfigRecord) -> Tags:
    weight, least = float(number(record["weight"])), count(record["min-cohort"])
    rows = zip(many_bytes(record["sealed"]), many_bytes(record["signatures"]), strict=True)
    return tuple(Tag(client, weight, least, *row) for row in rows), many_bytes(record["keys"])


def carried_of(content: RecordDict) -> Bytes | None:
    """The masked sum in a question to the helper; None where it has none."""
    record = content.array_records.get(CARRIED)
    if record is None:
        return None
    found = arrays_to_state(record)[CARRIED].numpy()
    if found.dtype != "uint8" or found.ndim != 1:
        raise ValueError("a masked sum that is no bytes")
    return found


@dataclass(frozen=True)
class SumRequest:
    """What a helper is asked to remove the masks of. `length`: of a vector. `model`: what the clients began with, where
    the helper computes the next one."""

    bound: Bound
    tags: tuple[Tag, ...]
    length: int
    carried: Bytes | None = None
    model: State | None = None

    @property
    def digest(self) -> str:
        """Of all but the model, which the tags are bound to."""
        found = hashlib.sha256(repr((astuple(self.bound), [astuple(tag) for tag in self.tags], self.length)).encode())
        found.update(b"" if self.carried is None else self.carried.tobytes())
        return found.hexdigest()


def pack_sum_request(request: SumRequest) -> RecordDict:
    bound, tags = request.bound, request.tags
    content = RecordDict(
        {
            SUM: ConfigRecord(
                {
                    "run": bound.run,
                    "server-round": bound.server_round,
                    "cohort": bound.cohort,
                    "model": bound.model,
                    "config": bound.config,
                    "work": bound.work,
                    "key": bound.key,
                    "place": bound.place,
                    "length": request.length,
                    "clients": [tag.client for tag in tags],
                    "weights": [tag.weight for tag in tags],
                    "min-cohorts": [tag.min_cohort for tag in tags],
                    "sealed": [tag.sealed for tag in tags],
                    "signatures": [tag.signature for tag in tags],
                }
            )
        }
    )
    if request.carried is not None:
        content[CARRIED] = state_to_arrays({CARRIED: torch.from_numpy(request.carried)})
    if request.model is not None:
        content[ARRAYS] = state_to_arrays(request.model)
    return content


def unpack_sum_request(content: RecordDict) -> SumRequest:
    record = content.config_records[SUM]
    bound = Bound(
        run=text(record["run"]),
        server_round=whole(record["server-round"]),
        cohort=count(record["cohort"]),
        model=text(record["model"]),
        config=text(record["config"]),
        work=text(record["work"]),
        key=bytes_of(record["key"]),
        place=count(record["place"]),
    )
    rows = zip(
        clients_of(record["clients"]),
        (float(weight) for weight in numbers(record["weights"])),
        (count(least) for least in numbers(record["min-cohorts"])),
        many_bytes(record["sealed"]),
        many_bytes(record["signatures"]),
        strict=True,
    )
    model = arrays_to_state(content.array_records[ARRAYS]) if ARRAYS in content.array_records else None
    return SumRequest(bound, tuple(Tag(*row) for row in rows), count(record["length"]), carried_of(content), model)


def pack_sum_reply(result: State, model: str = "") -> RecordDict:
    """`result`: tensors by name. `model`: the SHA-256 of the next model, where the helper has made it."""
    return RecordDict({SUM: ConfigRecord({"refused": "", "model": model}), RESULT: state_to_arrays(result)})


def pack_refusal(error: ProtocolError, clients: Mapping[int, str] | None = None) -> RecordDict:
    """`clients`: those whose tags are to blame, with why."""
    named = sorted(clients or {})
    reasons = [(clients or {})[client] for client in named]
    return RecordDict(
        {SUM: ConfigRecord({"refused": str(error), "kind": error.kind, "clients": named, "reasons": reasons})}
    )


def unpack_sum_reply(content: RecordDict) -> tuple[State, str]:
    """The tensors, and the next model's SHA-256. Raises ProtocolError for a refusal; it names those whose tags
    are to blame."""
    record = content.config_records[SUM]
    if refused := text(record["refused"]):
        if not isinstance(reasons := record["reasons"], list):
            raise TypeError("reasons that are no list")
        faults = dict(zip(clients_of(record["clients"]), (text(why) for why in reasons), strict=True))
        raise RefusedError(refused, faults, is_repetition=text(record["kind"]) == REPETITION)
    return arrays_to_state(content.array_records[RESULT], copy=False), text(record["model"])


class RefusedError(ProtocolError):
    """`faults`: by client whose tag is to blame, why. `is_repetition`: nothing is wrong with it, but its masks were
    removed for this model before."""

    def __init__(self, why: str, faults: Mapping[int, str], *, is_repetition: bool = False) -> None:
        super().__init__("helper", why, accused=tuple(faults))
        self.faults, self.is_repetition = dict(faults), is_repetition
