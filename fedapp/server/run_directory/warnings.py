"""What a person must know of a run, collected over its rounds."""

from collections.abc import Mapping
from typing import Any

__all__ = ["Warnings"]


class Warnings:
    """By kind, the latest text and in how many rounds it was said."""

    def __init__(self, saved: Mapping[str, tuple[str, int]] | None = None) -> None:
        """With `saved`, a `state_dict`, go on from there."""
        self._found: dict[str, tuple[str, int]] = {kind: (said[0], said[1]) for kind, said in (saved or {}).items()}

    def add(self, warnings: Mapping[str, str]) -> None:
        """One more round's, by kind."""
        for kind, text in warnings.items():
            self._found[kind] = text, self._found.get(kind, ("", 0))[1] + 1

    def texts(self) -> list[str]:
        """One for each kind, with its number of rounds where that is more than one."""
        return [f"{text} (in {rounds} rounds)" if rounds > 1 else text for text, rounds in self._found.values()]

    def state_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {kind: list(said) for kind, said in self._found.items()}
