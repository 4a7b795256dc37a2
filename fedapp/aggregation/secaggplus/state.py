"""What a SuperNode keeps of a secure aggregation between its messages: in memory, for one round, and for no longer.

`context.state` lives in the SuperNode's memory and is never written to disk. Secrets of a client are taken out of it to
be used, and only put back when another stage needs them, so that whatever goes wrong they are gone.
"""

from typing import cast

from flwr.app import ConfigRecord, RecordDict

from fedapp.aggregation.secaggplus.cohort_view import CohortView
from fedapp.aggregation.secaggplus.kept import Secrets
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.secaggplus.view_record import pack_view, unpack_view
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.wire.records import numbers, whole

__all__ = ["begin_round", "forget", "keep_secrets", "keep_view", "kept_view", "take_secrets"]

SECRETS, VIEW, ROUND = "secure-of-", "secure-view", "secure-round"


def begin_round(state: RecordDict, run: str, server_round: int) -> None:
    """Forget earlier rounds' state. Raises ProtocolError for a round that has begun already, or for an earlier one."""
    last = state.config_records.get(ROUND)
    if last is not None and last["run"] == run and whole(last["round"]) >= server_round:
        raise ProtocolError("replayed", f"round {server_round} after round {whole(last['round'])}")
    forget(state)
    state[ROUND] = ConfigRecord({"run": run, "round": server_round})


def forget(state: RecordDict) -> None:
    """Delete every secret of a round."""
    for key in [key for key in state if key == VIEW or key.startswith(SECRETS)]:
        del state[key]


def keep_view(state: RecordDict, view: CohortView) -> None:
    state[VIEW] = pack_view(view)


def kept_view(state: RecordDict, settings: Settings) -> CohortView:
    """Raises ProtocolError where this SuperNode knows of none."""
    record = state.config_records.get(VIEW)
    if record is None:
        raise ProtocolError("wrong stage", "this SuperNode knows of no cohort")
    return unpack_view(record, settings)


def keep_secrets(state: RecordDict, secrets: Secrets) -> None:
    owners = sorted(secrets.held)
    state[f"{SECRETS}{secrets.client}"] = ConfigRecord(
        {
            "stage": secrets.stage,
            "run": secrets.run,
            "round": secrets.server_round,
            "cipher-seed": secrets.cipher_seed,
            "mask-seed": secrets.mask_seed,
            "self-seed": secrets.self_seed,
            "digest": secrets.digest,
            "owners": owners,
            "self-shares": [secrets.held[owner][0] for owner in owners],
            "key-shares": [secrets.held[owner][1] for owner in owners],
            "present": list(secrets.present),
            "agreed": secrets.agreed,
        }
    )


def take_secrets(state: RecordDict, client: int) -> Secrets:
    """Take a client's secrets out of the state. Raises ProtocolError where there are none: nothing was begun, or all is
    done."""
    record = state.config_records.get(f"{SECRETS}{client}")
    if record is None:
        raise ProtocolError("wrong stage", "this client has begun no such round, or is done with it")
    del state[f"{SECRETS}{client}"]
    owners = [whole(owner) for owner in numbers(record["owners"])]
    shares = [cast(list[bytes], record[name]) for name in ("self-shares", "key-shares")]
    return Secrets(
        stage=str(record["stage"]),
        run=str(record["run"]),
        server_round=whole(record["round"]),
        client=client,
        cipher_seed=cast(bytes, record["cipher-seed"]),
        mask_seed=cast(bytes, record["mask-seed"]),
        self_seed=cast(bytes, record["self-seed"]),
        digest=cast(bytes, record["digest"]),
        held=dict(zip(owners, zip(*shares, strict=True), strict=True)),
        present=tuple(whole(client) for client in numbers(record["present"])),
        agreed=cast(bytes, record["agreed"]),
    )
