"""What stays with its client between rounds: a personal head (FedPer, Arivazhagan et al. 2019), or another part of the
model, or a whole one of its own."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from flwr.app import RecordDict
from safetensors.torch import load
from torch import Tensor

from fedapp.common.errors import DataError
from fedapp.common.files import write_atomically
from fedapp.common.tensor_file import tensor_file
from fedapp.wire.records import arrays_to_state, state_to_arrays

__all__ = ["FolderHead", "Head", "Heads", "StateHead"]

NAME = re.compile(r"round-(\d+)\.safetensors")


class Head(Protocol):
    """One client's head, as it was after each round in which it trained."""

    def after(self, server_round: int) -> dict[str, Tensor] | None:
        """The newest one of this round or an earlier one; None where there is none."""

    def of(self, server_round: int) -> dict[str, Tensor] | None:
        """That of this very round, where that is known."""

    def keep(self, server_round: int, state: Mapping[str, Tensor]) -> None: ...


Heads = Callable[[int], Head]  # by client


class FolderHead:
    """Files in a folder. A run that is resumed does some rounds again, with the heads of the time: those of the last
    `rounds_back` rounds stay, and the two newest before them. The client may have been at work since the last of these
    when the run was saved (rounds=buffered), and then begins that work again with the one before it. `before_keeping`
    is called before one is written."""

    def __init__(self, folder: Path, *, rounds_back: int, before_keeping: Callable[[], object] = lambda: None) -> None:
        self._folder, self._rounds_back, self._before_keeping = folder, rounds_back, before_keeping

    def after(self, server_round: int) -> dict[str, Tensor] | None:
        """Raises DataError for a damaged file: to begin anew in silence would spoil this client's part."""
        rounds = [number for number in self._files() if number <= server_round]
        if not rounds:
            return None
        path = self._files()[max(rounds)]
        try:
            return dict(load(path.read_bytes()))
        except Exception as error:  # safetensors' reader has kinds of its own
            raise DataError(f"{path}: is damaged ({error}); remove it to go on from the head before it") from None

    def of(self, server_round: int) -> dict[str, Tensor] | None:
        return self.after(server_round) if server_round in self._files() else None

    def keep(self, server_round: int, state: Mapping[str, Tensor]) -> None:
        self._before_keeping()
        self._folder.mkdir(parents=True, exist_ok=True)
        content = tensor_file(state)
        # It follows from the client's data alone, as nobody has averaged it.
        write_atomically(self._folder / f"round-{server_round:05d}.safetensors", content, mode=0o600)
        files = self._files()
        old = sorted(number for number in files if number < server_round - self._rounds_back)
        for number in [*old[:-2], *(number for number in files if number > server_round)]:
            files[number].unlink(missing_ok=True)

    def _files(self) -> dict[int, Path]:
        return {int(match[1]): path for path in self._folder.glob("*") if (match := NAME.fullmatch(path.name))}


class StateHead:
    """In a SuperNode's `context.state`, for as long as the run lasts."""

    def __init__(self, state: RecordDict, key: str) -> None:
        self._state, self._key = state, key

    def after(self, server_round: int) -> dict[str, Tensor] | None:
        arrays = self._state.array_records.get(self._key)
        return arrays_to_state(arrays) if arrays is not None else None

    def of(self, server_round: int) -> dict[str, Tensor] | None:
        return None

    def keep(self, server_round: int, state: Mapping[str, Tensor]) -> None:
        self._state[self._key] = state_to_arrays(state)
