"""Text of data sets of the Hugging Face Hub, through Flower Datasets."""

from dataclasses import dataclass
from typing import ClassVar

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.hub_split import column_of, hub_split
from fedapp.data.source import Examples, Pooled
from fedapp.data.text.text_files import lines_of
from fedapp.data.text.text_source import TextSource

__all__ = ["HubText"]


@dataclass(frozen=True, kw_only=True)
class HubText(TextSource):
    """The column `text` of a data set, by the column `user` where there is one; a line is one of a text. `dataset` and
    `subset` are as on the Hub; a local folder of Parquet files will do for `dataset`. `test_split` is the server's test
    data in place of held-out clients."""

    owner: ClassVar[str] = "user"
    dataset: str
    text: str = "text"
    user: str | None = None
    subset: str | None = None
    train_split: str = "train"
    test_split: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.test_clients and (self.user is None or self.test_split is not None):
            raise ConfigError(
                f"data.test_clients={self.test_clients}: needs data.user, the column of users, and data.test_split=null"
            )

    def pooled(self) -> Pooled:
        pooled = self.windows_of(self._by_user(self.train_split), self._name(self.train_split))
        return pooled if self.test_split is None else Pooled(pooled.train, self.test(), pooled.columns)

    def test(self) -> Examples | None:
        if self.test_split is None:
            return self.pooled().test if self.test_clients else None
        found = self.windows_of(self._by_user(self.test_split), self._name(self.test_split))
        return Examples(found.train.inputs, found.train.targets)

    def _name(self, split: str) -> str:
        return f"{self.dataset} ({split})"

    def _by_user(self, split: str) -> dict[str, list[str]]:
        rows, name = hub_split(self.dataset, self.subset, split), self._name(split)
        texts = column_of(rows, self.text, name)
        users = column_of(rows, self.user, name) if self.user is not None else ["everybody"] * len(texts)
        found: dict[str, list[str]] = {}
        for at, (user, text) in enumerate(zip(users, texts, strict=True)):
            if not isinstance(text, str):
                raise DataError(f"{name}: column {self.text!r}, example {at}: holds no text. Set data.text")
            found.setdefault(str(user), []).extend(lines_of(text))
        return found
