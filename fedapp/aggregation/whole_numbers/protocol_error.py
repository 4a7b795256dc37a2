"""Why a message of the protocol is not answered."""

from collections.abc import Collection

from fedapp.common.errors import FederationError

__all__ = ["ProtocolError"]


class ProtocolError(FederationError):
    """`kind` names what is wrong: "forged", "replayed", "truncated", "wrong stage", "wrong round", "wrong run",
    "wrong cohort", "duplicate share", "too few", "both secrets", "repetition". Holds no data, so its text may
    leave a client. `accused`: the clients whose fault it is, as far as whoever raises it can tell."""

    def __init__(self, kind: str, text: str, *, accused: Collection[int] = ()) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind, self.accused = kind, tuple(sorted(accused))
