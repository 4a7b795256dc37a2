"""One change to the code."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Mutant"]


@dataclass(frozen=True)
class Mutant:
    """In `file`, `old`, found there exactly once, becomes `new`; then `test`, a test's id as pytest has it, fails."""

    file: str
    old: str
    new: str
    test: str

    def apply(self, root: Path) -> None:
        """Raises ValueError where the file does not hold the line exactly once."""
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        if (found := text.count(self.old)) != 1:
            raise ValueError(f"{self.file} holds {self.old!r} {found} times; a mutant changes what is there once")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")
