"""One client's answers to the stages keys, shares, consistency and unmask, as entries of a record."""

from flwr.app import ConfigRecord

from fedapp.aggregation.secaggplus.member import Shared
from fedapp.aggregation.secaggplus.messages import Entries
from fedapp.aggregation.secaggplus.unmasking import Revealed
from fedapp.aggregation.whole_numbers.record_values import by_client, bytes_of, many_bytes

__all__ = [
    "key_answers",
    "revealed_answers",
    "shared_answers",
    "signed_answers",
    "unpack_keys",
    "unpack_revealed",
    "unpack_shared",
    "unpack_signed",
]


def key_answers(cipher_key: bytes, mask_key: bytes, signature: bytes) -> Entries:
    return {"cipher-key": cipher_key, "mask-key": mask_key, "signature": signature}


def unpack_keys(record: ConfigRecord) -> tuple[bytes, bytes, bytes]:
    return bytes_of(record["cipher-key"]), bytes_of(record["mask-key"]), bytes_of(record["signature"])


def shared_answers(shared: Shared) -> Entries:
    holders = sorted(shared.shares)
    return {
        "to": sorted(shared.sealed),
        "sealed": [shared.sealed[holder] for holder in sorted(shared.sealed)],
        "seed": shared.seed,
        "holders": holders,
        "self-shares": [shared.shares[holder][0] for holder in holders],
        "key-shares": [shared.shares[holder][1] for holder in holders],
    }


def unpack_shared(record: ConfigRecord) -> Shared:
    selfs, keys = (many_bytes(record[name]) for name in ("self-shares", "key-shares"))
    pairs = list(zip(selfs, keys, strict=True))
    return Shared(
        by_client(record["to"], many_bytes(record["sealed"])),
        bytes_of(record["seed"]),
        by_client(record["holders"], pairs),
    )


def revealed_answers(revealed: Revealed) -> Entries:
    found: Entries = {}
    for name, shares in (("self", revealed.self_shares), ("key", revealed.key_shares)):
        found[f"{name}-of"] = sorted(shares)
        found[f"{name}-shares"] = [shares[owner] for owner in sorted(shares)]
    return found


def unpack_revealed(record: ConfigRecord) -> Revealed:
    found = [by_client(record[f"{name}-of"], many_bytes(record[f"{name}-shares"])) for name in ("self", "key")]
    return Revealed(*found)


def signed_answers(signature: bytes) -> Entries:
    return {"signature": signature}


def unpack_signed(record: ConfigRecord) -> bytes:
    return bytes_of(record["signature"])
