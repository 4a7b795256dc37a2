"""What one client keeps of a round, and in which order its steps come: each at most once."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from fedapp.aggregation.secaggplus.cohort_view import CohortView
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError

__all__ = ["STAGES", "Secrets", "enough", "expect", "subset"]

STAGES = ("keys", "shares", "masked", "consistency", "unmask")


@dataclass(frozen=True)
class Secrets:
    """`stage` is the last one that the client has done. `held`: by owner, the shares of its self-mask seed and of its
    mask key, which this client holds. `present`: whose masks are in its vector. `agreed`: the digest of the list of
    survivors that it has signed."""

    stage: str
    run: str
    server_round: int
    client: int
    cipher_seed: bytes
    mask_seed: bytes
    self_seed: bytes = b""
    digest: bytes = b""
    held: Mapping[int, tuple[bytes, bytes]] = field(default_factory=dict)
    present: tuple[int, ...] = ()
    agreed: bytes = b""


def expect(secrets: Secrets, stage: str, run: str, server_round: int, digest: bytes | None = None) -> None:
    """Raises ProtocolError unless `stage` is the last step that was done, for this run, round and cohort."""
    if run != secrets.run:
        raise ProtocolError("wrong run", f"this client takes part in run {secrets.run}, not {run}")
    if server_round != secrets.server_round:
        raise ProtocolError(
            "wrong round", f"this client takes part in round {secrets.server_round}, not {server_round}"
        )
    done, wanted = STAGES.index(secrets.stage), STAGES.index(stage)
    if done > wanted:
        raise ProtocolError("replayed", f"the stage {STAGES[wanted + 1]} of round {server_round} is done already")
    if done < wanted:
        raise ProtocolError("wrong stage", f"the stage {STAGES[wanted]} of round {server_round} comes first")
    if digest is not None and digest != secrets.digest:
        raise ProtocolError("wrong cohort", "this is about another cohort, model or settings than before")


def subset(view: CohortView, clients: Collection[int], me: int, what: str) -> set[int]:
    """`clients` as a set. Raises ProtocolError where they are none of the cohort, or this client is not among them."""
    found = set(clients)
    if len(found) != len(clients) or not found <= view.by_client.keys():
        raise ProtocolError("forged", f"the list of {what} names clients twice, or strangers")
    if me not in found:
        raise ProtocolError("forged", f"the list of {what} lacks this client")
    return found


def enough(found: int, needed: int) -> None:
    if found < needed:
        raise ProtocolError("too few", f"{found} of those who hold this client's shares are left, {needed} are needed")
