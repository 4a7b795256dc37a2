"""A split is made once and read by the others; another one has another name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedapp.config import compose
from fedapp.data.splits import SPLITS, Rows, kept_split, split_key, splits_folder
from fedapp.learning.build import build_parts
from fedapp.learning.build_shards import build_shards

SMALL = "data=breast_cancer model=logistic_regression federation.num_clients=5"


def owners() -> list[Rows]:
    return [np.array([4, 1], np.int64), np.array([0], np.int64), np.array([2, 3, 5], np.int64)]


def never(*_: object) -> list[Rows]:
    raise AssertionError("the split was made again")


def test_what_was_kept_is_read(tmp_path: Path) -> None:
    made = kept_split(tmp_path, "key", owners)
    read = kept_split(tmp_path, "key", never)
    assert [rows.tolist() for rows in made] == [rows.tolist() for rows in read] == [[4, 1], [0], [2, 3, 5]]
    assert all(rows.dtype == np.int64 for rows in read)
    assert [path.name for path in tmp_path.iterdir()] == ["key.safetensors"]


COLUMNS: dict[str, Any] = {"label": np.array([0, 1, 1]), "site": np.array(["a", "b", "b"]), "row": np.arange(3)}


@pytest.mark.parametrize(
    ("settings", "columns"),
    [
        ({"seed": 2}, COLUMNS),
        ({"seed": 1}, {**COLUMNS, "label": np.array([0, 1, 0])}),
        ({"seed": 1}, {**COLUMNS, "label": np.array([0, 1, 1], np.int32)}),
        ({"seed": 1}, {**COLUMNS, "site": np.array(["a", "b", "c"])}),
        ({"seed": 1}, {**COLUMNS, "site": np.array(["a", "bb", ""], object)}),
        ({"seed": 1}, {name: COLUMNS[name] for name in ("label", "row")}),
    ],
)
def test_whatever_a_split_depends_on_is_in_its_key(settings: dict[str, int], columns: dict[str, Any]) -> None:
    assert split_key({"seed": 1}, COLUMNS) == split_key({"seed": 1}, {**COLUMNS})
    assert split_key(settings, columns) != split_key({"seed": 1}, COLUMNS)


def test_texts_of_other_lengths_do_not_run_into_each_other() -> None:
    one = split_key({}, {"site": np.array(["ab", "c"], object)})
    assert one != split_key({}, {"site": np.array(["a", "bc"], object)})


def test_shards_are_the_same_with_and_without_a_kept_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shards(config: Any, **options: Any) -> list[torch.Tensor]:
        made = build_shards(config, build_parts(config), **options)
        return [made.of(client).train.inputs for client in range(5)]

    config = compose(SMALL.split())
    monkeypatch.delenv(SPLITS, raising=False)
    alone = shards(config)
    first = shards(config, splits=tmp_path)
    monkeypatch.setenv(SPLITS, str(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr("fedapp.learning.build_shards.partition", never)
        second = shards(config)
        with pytest.raises(AssertionError, match="made again"):
            shards(compose([*SMALL.split(), "run.seed=1"]))
    for a, b, c in zip(alone, first, second, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_a_folder_that_is_not_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on another machine of a Ray cluster, which has the variable and not the folder."""
    monkeypatch.setenv(SPLITS, str(tmp_path / "elsewhere"))
    assert splits_folder() is None
    monkeypatch.setenv(SPLITS, str(tmp_path))
    assert splits_folder() == tmp_path
