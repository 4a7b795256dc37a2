"""What a party of vertical learning holds: its own columns of entities, and by which keys others know these."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from fedapp.common.errors import DataError
from fedapp.data.source import DataSource

if TYPE_CHECKING:
    from fedapp.data.party_reading import PartyReading

__all__ = ["ANY", "Cells", "PartySource", "PartyTable"]

Cells = Sequence[Sequence[str]]  # of one key: by column, by row
ANY = ""  # the key that serves for every other party


@dataclass(frozen=True)
class PartyTable:
    """`inputs` (n, columns) float32, NaN where a value is missing; `features` names its columns. `keys`: by other
    party, or for `ANY`, the cells of the columns that identify a row to both.

    The label party has `targets` (n, ...) and `held_out` (n,) bool: which rows are for evaluation. `reading`: how new
    rows become such a table; None where no file holds them.
    """

    name: str
    inputs: Tensor
    features: tuple[str, ...]
    keys: Mapping[str, Cells] = field(repr=False)
    targets: Tensor | None = None
    held_out: Tensor | None = None
    reading: "PartyReading | None" = None

    def __len__(self) -> int:
        return len(self.inputs)

    def key(self, other: str) -> Cells:
        """Raises DataError where nothing identifies a row to that party."""
        if (found := self.keys.get(other, self.keys.get(ANY))) is None:
            raise DataError(f"party {self.name}: no column identifies its rows to party {other}; name one in data.keys")
        return found

    def sha256(self) -> str:
        """Of all that training depends on: values, targets, what is held out, and the keys."""
        digest = sha256("|".join(self.features).encode())
        for tensor in (self.inputs, self.targets, self.held_out):
            if tensor is not None:
                digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.contiguous().numpy().data)
        for other, columns in sorted(self.keys.items()):
            for cells in columns:
                digest.update(sha256("\n".join([other, *cells]).encode("utf-8", "surrogatepass")).digest())
        return digest.hexdigest()


class PartySource(DataSource):
    """A data set that says itself which party holds what."""

    @property
    @abstractmethod
    def party_names(self) -> tuple[str, ...]:
        """All parties, as far as they are known; on devices they name themselves."""

    @property
    @abstractmethod
    def labelled(self) -> str:
        """The party with the labels, unless vertical.label_party says so."""

    @abstractmethod
    def table(self, party: str, label_party: str) -> PartyTable:
        """One party's table, in a simulation."""

    def local_table(self, path: Path, party: str, label_party: str, key: str) -> PartyTable:
        """A device's own, from the `data-path` and `id-column` of its node-config."""
        raise DataError(
            f"data-path={str(path)!r}: {type(self).__name__} has no form that lies on a device. Use data=party_files"
        )
