"""Messages of secure aggregation: stages, each a question to the clients of a SuperNode and their answers.

| stage       | server to SuperNode                         | reply                                                   |
|-------------|---------------------------------------------|---------------------------------------------------------|
| keys        | round, clients                              | by client: two public keys, a signature of its device   |
| shares      | the view: members, weights, keys, the model | by client: sealed shares, commitments                   |
|             | as a digest                                 |                                                         |
| masked      | arrays: the model; who is there; by client  | arrays: the sum of its clients' masked vectors; by      |
|             | the shares for it                           | client, what it spent of its privacy                    |
| consistency | whose vectors came, and whose did not       | by client: a signature of its device. Among devices     |
| unmask      | the same, with all signatures               | by client: its shares of their secrets                  |

Every message says its stage, run and round, and after the stage "keys" the digest of the round's view.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flwr.app import ConfigRecord, RecordDict

from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.aggregation.whole_numbers.record_values import by_client, bytes_of, clients_of, many_bytes
from fedapp.wire.records import text, whole

__all__ = [
    "ACCUSED",
    "CLIENT",
    "HEADER",
    "Entries",
    "Header",
    "header_record",
    "pack_answers",
    "pack_question",
    "pack_signatures",
    "unpack_accused",
    "unpack_answers",
    "unpack_header",
    "unpack_signatures",
    "unpack_survivors",
]

HEADER, CLIENT, SIGNATURES, ACCUSED = "secure", "client", "signatures", "accused"
Entries = dict[str, int | float | str | bytes | bool | list[int] | list[float] | list[str] | list[bytes] | list[bool]]


@dataclass(frozen=True)
class Header:
    """What a message of the protocol is about. `clients`: of the SuperNode. `digest`: of the round's view."""

    stage: str
    run: str
    server_round: int
    clients: tuple[int, ...]
    digest: bytes = b""

    def expect(self, wanted: "Header") -> None:
        """Raises ProtocolError, by name, for an answer to another question."""
        for name, kind in (("stage", "wrong stage"), ("run", "wrong run"), ("server_round", "wrong round")):
            if (found := getattr(self, name)) != getattr(wanted, name):
                raise ProtocolError(kind, f"an answer about {text(str(found))}, asked about {getattr(wanted, name)}")
        if self.digest != wanted.digest:
            raise ProtocolError("wrong cohort", "an answer about another cohort")
        if self.clients != wanted.clients:
            raise ProtocolError("forged", "an answer for other clients than those that were asked")


def pack_question(header: Header, **entries: list[int]) -> RecordDict:
    """`entries`: further lists of clients."""
    return RecordDict({HEADER: header_record(header, entries)})


def header_record(header: Header, more: Mapping[str, list[int]] | None = None) -> ConfigRecord:
    return ConfigRecord(
        {
            "stage": header.stage,
            "run": header.run,
            "server-round": header.server_round,
            "clients": list(header.clients),
            "digest": header.digest,
            **(more or {}),
        }
    )


def unpack_header(content: RecordDict) -> Header:
    """Raises ValueError, KeyError or TypeError where it is malformed, as every function here that unpacks."""
    record = content.config_records[HEADER]
    return Header(
        text(record["stage"]),
        text(record["run"]),
        whole(record["server-round"]),
        clients_of(record["clients"]),
        bytes_of(record["digest"]),
    )


def pack_answers(header: Header, answers: Mapping[int, Entries], refused: Mapping[int, ProtocolError]) -> RecordDict:
    """`refused`: by client, why it does not answer."""
    content = RecordDict({HEADER: header_record(header)})
    for client, entries in answers.items():
        content[f"{CLIENT}-{client}"] = ConfigRecord(entries)
    for client, why in refused.items():
        content[f"{CLIENT}-{client}"] = ConfigRecord({"refused": str(why), ACCUSED: list(why.accused)})
    return content


def unpack_answers(content: RecordDict, clients: Iterable[int]) -> tuple[dict[int, ConfigRecord], dict[int, str]]:
    """By client its answer; and why others do not answer."""
    answers, refused = {}, {}
    for client in clients:
        record = content.config_records.get(f"{CLIENT}-{client}", ConfigRecord({"refused": "it did not answer"}))
        if "refused" in record:
            refused[client] = text(record["refused"])
        else:
            answers[client] = record
    return answers, refused


def unpack_accused(content: RecordDict, clients: Iterable[int]) -> dict[int, tuple[int, ...]]:
    """By client, whose fault it says that it does not answer."""
    nothing = ConfigRecord()
    found = {client: content.config_records.get(f"{CLIENT}-{client}", nothing) for client in clients}
    return {client: clients_of(record[ACCUSED]) for client, record in found.items() if ACCUSED in record}


def unpack_survivors(content: RecordDict) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Whose vectors came, and whose did not, in a question of the stage unmask."""
    record = content.config_records[HEADER]
    return clients_of(record["survivors"]), clients_of(record["dropped"])


def pack_signatures(signatures: Mapping[int, bytes]) -> ConfigRecord:
    """By client, of the list of survivors: for a question of the stage unmask."""
    signers = sorted(signatures)
    return ConfigRecord({"by": signers, SIGNATURES: [signatures[client] for client in signers]})


def unpack_signatures(content: RecordDict) -> dict[int, bytes]:
    record = content.config_records.get(SIGNATURES)
    return by_client(record["by"], many_bytes(record[SIGNATURES])) if record is not None else {}
