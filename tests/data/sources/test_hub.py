"""Real loading by `datasets` and Flower Datasets, from local folders written by the tests."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.source import Scaling
from fedapp.data.sources.hub import Hub

PIXELS: dict[str, Any] = {"image": "image", "label": "label", "classes": ["cat", "dog"], "size": 4, "channels": 1}


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, no telemetry, and the cache in the test's own folder."""
    import datasets
    import huggingface_hub
    from flwr_datasets import federated_dataset

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(federated_dataset, "event", lambda *_: None)


def png(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 4), grey).save(buffer, "PNG")
    return buffer.getvalue()


def write_images(folder: Path, split: str, labels: list[int], content: list[bytes] | None = None) -> None:
    import datasets

    files = [{"bytes": data, "path": None} for data in content or [png(label * 10) for label in labels]]
    columns = {"image": files, "label": labels, "writer": [f"w{label}" for label in labels]}
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["dog", "cat"]), writer=datasets.Value("string")
    )
    folder.mkdir(exist_ok=True)
    datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / f"{split}-00000.parquet")


def write_table(folder: Path, columns: dict[str, list[Any]], split: str = "train") -> str:
    import datasets

    folder.mkdir(exist_ok=True)
    datasets.Dataset.from_dict(columns).to_parquet(folder / f"{split}-00000.parquet")
    return str(folder)


def failure(source: Hub) -> str:
    with pytest.raises(DataError) as raised:
        source.pooled()
    return str(raised.value)


def test_images_labels_by_name_and_group(tmp_path: Path) -> None:
    write_images(tmp_path / "set", "train", [0, 1, 1])
    write_images(tmp_path / "set", "test", [1])
    source = Hub(dataset=str(tmp_path / "set"), group="writer", **PIXELS)
    pooled, schema = source.pooled(), source.schema()
    assert schema.input_shape == (1, 4, 4)
    assert schema.scaling == Scaling("fixed", 0.0, 255.0)
    pooled.train.check(schema, "train")
    assert pooled.train.inputs.dtype == torch.uint8
    assert pooled.train.inputs[:, 0, 0, 0].tolist() == [0, 10, 10]
    assert pooled.train.targets.tolist() == [1, 0, 0]  # the file's 0 is "dog", which data.classes has second
    assert pooled.columns == {"writer": ["w0", "w1", "w1"]}
    test = source.test()
    assert test is not None
    assert test.targets.tolist() == [0]


def test_held_out_share_where_there_is_no_test_split(tmp_path: Path) -> None:
    write_images(tmp_path / "set", "train", [0, 1] * 5)
    source = Hub(dataset=str(tmp_path / "set"), test_split=None, group="writer", **PIXELS)
    pooled, test = source.pooled(), source.test()
    assert pooled.test is not None
    assert test is not None
    assert (len(pooled.train), pooled.test.targets.sort().values.tolist()) == (8, [0, 1])
    assert torch.equal(test.inputs, pooled.test.inputs)
    assert [f"w{1 - label}" for label in pooled.train.targets.tolist()] == pooled.columns["writer"]


def test_a_folder_of_images(tmp_path: Path) -> None:
    for name, grey in [("cat", 9), ("dog", 99)]:
        folder = tmp_path / "set" / "train" / name
        folder.mkdir(parents=True)
        (folder / "0.png").write_bytes(png(grey))
    source = Hub(dataset=str(tmp_path / "set"), test_split=None, test_fraction=0.0, **PIXELS)
    train = source.pooled().train
    assert dict(zip(train.targets.tolist(), train.inputs[:, 0, 0, 0].tolist(), strict=True)) == {0: 9, 1: 99}


def test_columns_of_numbers(tmp_path: Path) -> None:
    columns = {"a": [1, 2], "b": [0.5, -1.0], "text": ["x", "y"], "y": ["no", "yes"], "price": [1.5, 2.5]}
    path = write_table(tmp_path / "set", columns)
    named: dict[str, Any] = {"dataset": path, "features": ["b", "a"], "test_split": None, "test_fraction": 0.0}
    source = Hub(label="y", classes=["yes", "no"], **named)
    assert source.schema().features == ("b", "a")
    assert source.schema().scaling.kind == "federated"
    assert source.pooled().train.inputs.tolist() == [[0.5, 1.0], [-1.0, 2.0]]
    assert source.pooled().train.targets.tolist() == [1, 0]
    prices = Hub(label="price", **named)
    assert prices.schema().classes == ()
    assert prices.pooled().train.targets.tolist() == [1.5, 2.5]
    assert prices.pooled().train.targets.dtype == torch.float32


def test_numbered_labels_are_indices(tmp_path: Path) -> None:
    path = write_table(tmp_path / "set", {"a": [1.0, 2.0, 3.0], "y": [2, 0, 1]})
    source = Hub(dataset=path, label="y", features=["a"], classes=["u", "v", "w"], test_split=None, test_fraction=0.0)
    assert source.pooled().train.targets.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("labels", "classes", "targets"),
    [
        ([1, 2, 3, 1], ["1", "2", "3", "4"], [0, 1, 2, 0]),  # the top class is absent
        ([2, 4], [4, 2], [1, 0]),
        ([1.0, 0.0], ["0", "1"], [1, 0]),
        (["1", "2.0"], ["1", "2"], [0, 1]),
        ([0, 1, 0], ["u", "v", "w"], [0, 1, 0]),
        ([True, False], ["True", "False"], [0, 1]),
    ],
)
def test_labels_are_matched_by_value(tmp_path: Path, labels: list[Any], classes: list[Any], targets: list[int]) -> None:
    path = write_table(tmp_path / "set", {"a": [1.0] * len(labels), "y": labels})
    source = Hub(dataset=path, label="y", features=["a"], classes=classes, test_split=None, test_fraction=0.0)
    assert source.pooled().train.targets.tolist() == targets


@pytest.mark.parametrize(("labels", "refused"), [([1, 2, 1], "never 0"), ([1, 2, 3], "3 is no known label")])
def test_numbers_that_may_count_from_one_are_refused(tmp_path: Path, labels: list[int], refused: str) -> None:
    path = write_table(tmp_path / "set", {"a": [1.0] * 3, "y": labels})
    told = failure(Hub(dataset=path, label="y", features=["a"], classes=["u", "v", "w"], test_split=None))
    assert told.startswith(f"{path} (train): column 'y'")
    assert refused in told
    assert refused != "never 0" or "data.classes=[1,2]" in told


def test_a_test_split_may_lack_the_first_class(tmp_path: Path) -> None:
    path = write_table(tmp_path / "set", {"a": [1.0, 2.0], "y": [0, 1]})
    write_table(tmp_path / "set", {"a": [3.0], "y": [1]}, "test")
    test = Hub(dataset=path, label="y", features=["a"], classes=["u", "v"]).test()
    assert test is not None
    assert test.targets.tolist() == [1]


def test_groups_stay_whole(tmp_path: Path) -> None:
    path = write_table(
        tmp_path / "set",
        {"a": [float(i // 5) for i in range(40)], "y": [0, 1] * 20, "who": [i // 5 for i in range(40)]},
    )
    pooled = Hub(dataset=path, label="y", features=["a"], classes=["0", "1"], test_split=None, split_by="who").pooled()
    assert pooled.test is not None
    assert not set(pooled.train.inputs.flatten().tolist()) & set(pooled.test.inputs.flatten().tolist())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"label": "z"}, "no column 'z'; it has 'a', 'gap', 'text', 'y', 'unlabelled'"),
        ({"features": ["b"]}, "no column 'b'"),
        ({"group": "site"}, "no column 'site'"),
        ({"features": ["text"]}, "column 'text' holds string, not numbers"),
        ({"features": ["gap"]}, "column 'gap', example 1: None is missing"),
        ({"features": None, "image": "a"}, "column 'a' holds Value"),
        ({"features": None, "image": "b"}, "no column 'b'"),
        ({"classes": ["no", "maybe"]}, "column 'y', example 1: 'yes' is no known label; known: 'no', 'maybe'"),
        ({"label": "unlabelled"}, "column 'unlabelled', example 0: -1 is no known label"),
        ({"label": "text", "classes": None}, "column 'text' holds string, not numbers"),
    ],
)
def test_wrong_columns(tmp_path: Path, fields: dict[str, Any], expected: str) -> None:
    columns = {"a": [1, 2], "gap": [1, None], "text": ["x", "y"], "y": ["no", "yes"], "unlabelled": [-1, -1]}
    path = write_table(tmp_path / "set", columns)
    given = {"label": "y", "features": ["a"], "classes": ["no", "yes"], "test_split": None, **fields}
    assert failure(Hub(dataset=path, **given)).startswith(f"{path} (train): {expected}")


def test_wrong_split_and_broken_image(tmp_path: Path) -> None:
    write_images(tmp_path / "set", "train", [0, 1], content=[png(1), b"broken"])
    path = str(tmp_path / "set")
    assert f"{path} (train): column 'image', example 1: cannot be used as an image" in failure(Hub(path, **PIXELS))
    told = failure(Hub(path, train_split="training", **PIXELS))
    assert told.startswith(f"{path} (training): could not be loaded: ")
    assert "Check data.dataset" in told


def test_a_label_name_that_is_not_listed(tmp_path: Path) -> None:
    write_images(tmp_path / "set", "train", [1, 0])
    told = failure(Hub(str(tmp_path / "set"), test_split=None, **{**PIXELS, "classes": ["cat", "cow"]}))
    assert "column 'label', example 1: 'dog' is no known label; known: 'cat', 'cow'" in told


def test_no_network() -> None:
    source = Hub("ylecun/mnist", **PIXELS)
    assert source.schema().classes == ("cat", "dog")
    told = failure(source)
    assert told.startswith("ylecun/mnist: no network, or the Hugging Face Hub cannot be reached")
    for name in ("data=digits", "data=csv", "data=image_folder"):
        assert name in told


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "data.image=None, data.features=None: set one"),
        ({"image": "i", "features": ["a"]}, "data.image=i, data.features=['a']: set one"),
        ({"features": []}, "data.features=[]: needs 1 or more"),
        ({"features": ["a", "a"]}, "data.features: 'a' is listed more than once"),
        ({"image": "i", "classes": ["a"]}, "data.classes=['a']: needs 2 or more"),
        ({"image": "i", "size": 0}, "data.size=0"),
        ({"image": "i", "channels": 2}, "data.channels=2: must be one of 1, 3"),
        ({"image": "i", "test_fraction": 2.0}, "data.test_fraction=2.0"),
    ],
)
def test_impossible_settings(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}"):
        Hub("x/y", "label", **fields)
