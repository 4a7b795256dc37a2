"""How a party's new rows are read as those that it trained on."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fedapp.data.party_table import PartyTable
from fedapp.data.tables.columns import Columns
from fedapp.data.tables.sheet import Form
from fedapp.data.tables.table import DataTable
from fedapp.data.tables.table_file import read_sheet

__all__ = ["PartyReading"]


@dataclass(frozen=True)
class PartyReading:
    """`columns` of a file become inputs, of which the party has `features`. `keys`: by other party, or for `ANY`, the
    columns that identify a row to both; none: its number in the file. `form`: how cells are written.

    It holds names of columns and categories, and nothing else of the data.
    """

    columns: Columns
    features: tuple[str, ...]
    keys: Mapping[str, tuple[str, ...]]
    form: Form = field(default_factory=Form)

    def read(self, path: Path, party: str) -> tuple[PartyTable, list[int]]:
        """The rows of a file without labels, and each one's number in a spreadsheet. Raises DataError, opening with
        the path."""
        used = [*self.columns.inputs, *(name for names in self.keys.values() for name in names)]
        sheet = read_sheet(path.expanduser(), replace(self.form, expected=frozenset(used)))
        table = DataTable.of(str(path), [sheet])
        table.check(*used)
        table = self.columns.complete(table)
        inputs, _ = self.columns.unlabelled(table)
        places = [self.columns.features.index(name) for name in self.features]
        cells = {
            other: [table.column(name).values() for name in names] or [[str(row) for row in table.rows]]
            for other, names in self.keys.items()
        }
        return PartyTable(party, inputs[:, places].contiguous(), self.features, cells), table.rows
