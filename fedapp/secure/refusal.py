"""Why a message of the protocol is not answered."""

from fedapp.errors import FederationError

__all__ = ["Refused"]


class Refused(FederationError):  # noqa: N818 (what it is to whoever reads it)
    """`kind` names what is wrong: "forged", "replayed", "truncated", "wrong stage", "wrong round", "wrong run",
    "wrong cohort", "duplicate share", "too few", "both secrets". Holds no data, so its text may leave a client."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
