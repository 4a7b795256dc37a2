"""Labelled texts from the Hugging Face Hub, through Flower Datasets."""

from dataclasses import dataclass

from fedapp.common.errors import DataError
from fedapp.data.findings import Findings
from fedapp.data.hub_split import hub_split
from fedapp.data.source import Examples, Pooled
from fedapp.data.sources.own_labelled_text import OwnLabelledText, Row
from fedapp.data.text.labelled_text import LabelledText

__all__ = ["HubLabelledText"]


@dataclass(frozen=True, kw_only=True)
class HubLabelledText(OwnLabelledText):
    """`dataset` and `subset` are as on the Hub; a local folder of Parquet files will do for `dataset`. `test_split`
    None: `test_clients` users of the training split are held out."""

    dataset: str
    subset: str | None = None
    train_split: str = "train"
    test_split: str | None = "test"

    def pooled(self) -> Pooled:
        pooled = self.by_user(self._rows(self.train_split), f"{self.dataset} ({self.train_split})")
        return pooled if self.test_split is None else Pooled(pooled.train, self.test(), pooled.columns)

    def test(self) -> Examples | None:
        if self.test_split is None:
            return self.pooled().test
        return self.examples_of(self.read(self._rows(self.test_split), f"{self.dataset} ({self.test_split})"))

    def findings(self) -> Findings:
        return LabelledText.findings(self)

    def _rows(self, split: str) -> list[Row]:
        name = f"{self.dataset} ({split})"
        found = hub_split(self.dataset, self.subset, split)
        for column in (self.text, self.label):
            if column not in found.column_names:
                raise DataError(f"{name}: no column {column!r}; it has {', '.join(found.column_names)}")
        wanted = [name for name in (self.text, self.label, self.user) if name in found.column_names]
        labels = getattr(found.features[self.label], "names", None)  # by which the data set calls its numbers
        rows = []
        for number, row in enumerate(found.select_columns(wanted)):
            cells = {key: "" if value is None else str(value) for key, value in row.items()}
            if labels is not None and row[self.label] in range(len(labels)):
                cells[self.label] = labels[row[self.label]]
            rows.append((f"{name}, example {number}", cells))
        return rows
