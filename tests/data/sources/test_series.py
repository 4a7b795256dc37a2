"""Windows over series: what they see and predict, and that nothing of the future or another series is seen."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedapp.common.errors import ConfigError, DataError
from fedapp.config import compose
from fedapp.data.sources.time_series import TimeSeries
from fedapp.learning.build import build_parts
from fedapp.learning.build_shards import build_shards


def sales(folder: Path, order: list[int] | None = None, count: int = 30) -> Path:
    """Two shops; `sold` is the day, and 1000 more in the second one."""
    rows = [
        f"{1 + i // 28:02d}.{1 + i % 28:02d},{shop},{i},{1000 * number + i}"
        for i in range(count)
        for number, shop in enumerate("AB")
    ]
    rows = [f"2021-{row[:2]}-{row[3:5]}{row[5:]}" for row in rows]
    if order is not None:
        rows = [rows[at] for at in order]
    path = folder / "sales.csv"
    path.write_text("day,shop,n,sold\n" + "\n".join(rows) + "\n")
    return path


FIELDS: dict[str, Any] = {"label": "sold", "regression": True, "time": "day", "series": "shop", "test_fraction": 0.0}


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(60)), st.sets(st.integers(0, 6), min_size=1), st.integers(0, 4))
def test_a_window_sees_the_right_steps_of_its_own_series(order: list[int], lags: set[int], horizon: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = sales(Path(folder), order)
        source = TimeSeries(path=str(path), lags=sorted(lags), horizon=horizon, **FIELDS)
        train, schema = source.pooled().train, source.schema()
        assert source.local(path).inputs.equal(train.inputs)  # as a device
    steps = sorted((lag + horizon for lag in lags), reverse=True)
    assert schema.features == tuple(f"n[-{step}]" for step in steps)
    assert len(train) == 2 * (30 - max(steps))
    for inputs, target in zip(train.inputs.tolist(), train.targets.tolist(), strict=True):
        assert inputs == [target % 1000 - step for step in steps]


def test_the_past_of_the_label_and_the_order_of_features(tmp_path: Path) -> None:
    source = TimeSeries(path=str(sales(tmp_path)), window=3, lag_label=True, **FIELDS)
    assert source.schema().features == ("n[-3]", "n[-2]", "n[-1]", "sold[-3]", "sold[-2]", "sold[-1]")
    train = source.pooled().train
    at = train.targets.tolist().index(1010.0)
    assert train.inputs[at].tolist() == [7, 8, 9, 1007, 1008, 1009]
    assert source.schema().steps == 3
    assert "windows     54: the rows 3, 2, 1 steps before the target" in source.findings().facts


def test_a_series_may_have_nothing_but_its_own_past(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("day,sold\n" + "".join(f"2021-01-{1 + i:02d},{i}\n" for i in range(9)))
    source = TimeSeries("sold", str(path), time="day", window=2, lag_label=True, regression=True, test_fraction=0.0)
    assert source.pooled().train.inputs.tolist() == [[float(i - 2), float(i - 1)] for i in range(2, 9)]
    with pytest.raises(DataError, match="no column is left as a feature"):
        TimeSeries("sold", str(path), time="day", regression=True).schema()


def test_test_and_validation_data_are_the_latest_of_each_client(tmp_path: Path) -> None:
    path = sales(tmp_path)
    overrides = (
        f"data=series data.path={path} data.time=day data.series=shop data.group=shop data.label=sold data.window=4"
    )
    more = "data.regression=true model=cnn1d partition=natural federation.num_clients=2 train.val_fraction=0.25"
    config = compose([*overrides.split(), *more.split()])
    parts = build_parts(config)
    shards = build_shards(config, parts)
    test = parts.source.test()
    assert test is not None
    day = test.targets % 1000
    for client, offset in enumerate((0, 1000)):
        data = shards.of(client)
        assert {int(value) // 1000 * 1000 for value in data.train.targets} == {offset}
        assert data.train.targets.max() < data.validation.targets.min()
        assert (data.validation.targets % 1000).max() < day.min()
    assert parts.whole(data.train.inputs).shape == (len(data.train), 1)


def test_by_person_whoever_is_held_out_is_not_trained_on(tmp_path: Path) -> None:
    rows = [f"{t},p{person},{person},{(person + t) % 2}" for person in range(10) for t in range(8)]
    (tmp_path / "t.csv").write_text("t,who,x,y\n" + "\n".join(rows) + "\n")
    source = TimeSeries("y", str(tmp_path / "t.csv"), time="t", series="who", split_by="who", window=2, horizon=0)
    pooled = source.pooled()
    assert pooled.test is not None
    assert source.schema().classes == ("0", "1")
    assert not {*pooled.train.inputs[:, 0].tolist()} & {*pooled.test.inputs[:, 0].tolist()}


def test_new_rows_are_predicted_from_their_window(tmp_path: Path) -> None:
    path = sales(tmp_path, count=5)
    source = TimeSeries(window=3, lag_label=True, numeric=["n"], categorical={}, **FIELDS)
    inputs, names = source.unlabelled(path)
    assert inputs[0].tolist() == [0, 1, 2, 0, 1, 2]
    assert len(inputs) == 6
    assert names[0] == "6"  # the row of the spreadsheet that the first window ends with


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"time": None}, ["data.time=null"]),
        ({"window": 0}, ["data.window=0", "at least 1"]),
        ({"horizon": -1}, ["data.horizon=-1"]),
        ({"lags": [1, 1]}, ["data.lags=[1, 1]"]),
        ({"missing": "drop"}, ["data.missing=drop", "tear"]),
        ({"lag_label": True, "horizon": 0}, ["data.lag_label=true", "data.horizon"]),
        ({"lag_label": True, "regression": False}, ["data.lag_label=true", "data.regression=true"]),
        ({"split_time": "day"}, ["data.split_time=day"]),
        ({"time": "sold"}, ["'sold'", "data.label"]),
    ],
)
def test_settings_that_make_no_windows(fields: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        TimeSeries(**{**FIELDS, **fields})
    assert [part for part in parts if part not in str(raised.value)] == [], str(raised.value)


def test_series_that_cannot_be_told_apart_or_are_too_short(tmp_path: Path) -> None:
    path = str(sales(tmp_path))
    with pytest.raises(DataError, match=r"sales\.csv: column 'day', row 3: '2021-01-01' is a time .*data\.series"):
        TimeSeries(path=path, **{**FIELDS, "series": None}, ignore=["shop"]).pooled()
    with pytest.raises(DataError, match=r"no series has the 41 rows"):
        TimeSeries(path=path, window=40, **FIELDS).pooled()


def test_scaling_constants_are_those_of_the_column(tmp_path: Path) -> None:
    source = TimeSeries(
        window=2, scaling="given", numeric=["n"], categorical={}, means={"n": 5}, deviations={"n": 2}, **FIELDS
    )
    assert source.schema().scaling.offset == (5.0, 5.0)
    assert torch.tensor(source.schema().scaling.scale).tolist() == [2.0, 2.0]
