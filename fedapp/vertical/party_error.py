"""Why a message between parties is not answered."""

from fedapp.common.errors import FederationError

__all__ = ["PartyError"]


class PartyError(FederationError):
    """`kind` names what is wrong: "wrong length", "no point", "identity element", "replayed", "forged", "wrong stage",
    "repetition", "lost state". Holds no data, so its text may leave a party."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
