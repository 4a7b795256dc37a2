"""Matching where all tables lie in one place: by the identities themselves, with nothing hidden."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fedapp.data.party_table import PartyTable
from fedapp.vertical.identities import check_unique, joined

__all__ = ["rows_by_party"]


def rows_by_party(tables: Mapping[str, PartyTable], label_party: str, rule: str) -> dict[str, Tensor]:
    """By party, its row of each row of the label party, (n,) int64, -1 for none. `rule`: vertical.normalise. Raises
    DataError where a party without labels has an identity twice."""
    own = tables[label_party]
    found = {label_party: torch.arange(len(own))}
    for name, table in tables.items():
        if name != label_party:
            theirs = [joined(cells, rule) for cells in zip(*table.key(label_party), strict=True)]
            check_unique(theirs, f"party {name}")
            places = {identity: row for row, identity in enumerate(theirs) if identity}
            mine = (joined(cells, rule) for cells in zip(*own.key(name), strict=True))
            found[name] = torch.tensor([places.get(identity, -1) for identity in mine], dtype=torch.int64)
    return found
