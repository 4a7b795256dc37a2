"""The round's view as a record: in a question of the stage shares, and in what a SuperNode keeps between messages."""

from flwr.app import ConfigRecord

from fedapp.aggregation.secaggplus.cohort_view import CohortView, Member
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.whole_numbers.record_values import clients_of, many_bytes
from fedapp.wire.records import numbers, text, whole

__all__ = ["pack_view", "unpack_view"]


def pack_view(view: CohortView) -> ConfigRecord:
    members = view.members
    return ConfigRecord(
        {
            "run": view.run,
            "server-round": view.server_round,
            "model": view.model,
            "work": view.work,
            "clients": [member.client for member in members],
            "weights": [member.weight for member in members],
            "cipher-keys": [member.cipher_key for member in members],
            "mask-keys": [member.mask_key for member in members],
            "signatures": [member.signature for member in members],
        }
    )


def unpack_view(record: ConfigRecord, settings: Settings) -> CohortView:
    """`settings` are the receiver's own, from the run's config: no message changes them."""
    columns = (
        clients_of(record["clients"]),
        [float(weight) for weight in numbers(record["weights"])],
        *(many_bytes(record[name]) for name in ("cipher-keys", "mask-keys", "signatures")),
    )
    members = tuple(Member(*row) for row in zip(*columns, strict=True))
    told = (text(record["run"]), whole(record["server-round"]), text(record["model"]))
    return CohortView(*told, members, settings.at(len(members)), text(record["work"]))
