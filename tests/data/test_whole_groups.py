"""No split separates what belongs together; what is held out by time comes last."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedapp.common.errors import ConfigError, DataError
from fedapp.config import compose
from fedapp.data.source import Examples
from fedapp.data.sources.csv_table import CsvTable
from fedapp.data.whole_groups import split_whole
from fedapp.learning.build import build_parts
from fedapp.learning.build_shards import build_shards


def examples(groups: list[int] | None, times: list[float] | None = None, targets: list[int] | None = None) -> Examples:
    count = len(groups if groups is not None else times or ())
    return Examples(
        torch.arange(count).unsqueeze(1).float(),
        torch.tensor(targets or [0] * count),
        None if groups is None else torch.tensor(groups),
        None if times is None else torch.tensor(times, dtype=torch.float64),
    )


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=60),
    st.floats(0.01, 0.9),
    st.integers(0, 9),
    st.booleans(),
    st.data(),
)
def test_groups_stay_whole(groups: list[int], fraction: float, seed: int, timed: bool, data: st.DataObject) -> None:
    count = len(groups)
    labels = data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    times = data.draw(st.lists(st.integers(0, 5).map(float), min_size=count, max_size=count)) if timed else None
    kept, held = split_whole(examples(groups, times, labels), fraction, seed)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(count))
    assert len(kept)
    assert not {groups[row] for row in kept} & {groups[row] for row in held}
    if times is not None:
        last = {group: max(time for time, its in zip(times, groups, strict=True) if its == group) for group in groups}
        assert all(last[groups[old]] < last[groups[new]] for old in kept for new in held)


def test_about_the_share_is_held_out_of_each_class() -> None:
    groups = [row // 4 for row in range(200)]  # 50 groups of 4; every fifth is of the rare class
    labels = [int(group % 5 == 0) for group in groups]
    _, held = split_whole(examples(groups, None, labels), 0.2, 0)
    assert len(held) == 40
    assert sum(labels[row] for row in held) == 8


def test_times_alone_hold_out_the_latest_and_never_divide_a_moment() -> None:
    kept, held = split_whole(examples(None, [5.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 6.0, 7.0, 8.0]), 0.3, 0)
    assert held.tolist() == [7, 8, 9]
    kept, held = split_whole(examples(None, [1.0, 2.0, 3.0, 4.0, 4.0, 4.0]), 0.3, 0)
    assert kept.tolist() == [0, 1, 2]


def patients(folder: Path, extra: str = "") -> Path:
    generator = np.random.default_rng(0)
    rows = ["patient_id,hospital,day,dose,ill"]
    for patient in range(42):
        for visit in range(int(generator.integers(2, 9))):
            day = f"2021-{1 + visit:02d}-{1 + patient % 28:02d}"
            rows.append(f"p{patient:02d},h{patient % 3},{day},{patient + visit / 10},{'yes' if patient % 4 else 'no'}")
    path = folder / "patients.csv"
    path.write_text("\n".join(rows) + "\n" + extra)
    return path


def patient_of(inputs: torch.Tensor, column: int = 0) -> set[int]:
    return {int(value + 1e-3) for value in inputs[:, column].tolist()}


def shards_of(path: Path, *overrides: str) -> Any:
    fixed = [
        "data=csv",
        f"data.path={path}",
        "data.label=ill",
        "model=mlp",
        "data.numeric=[dose]",
        "data.categorical={}",
    ]
    config = compose([*fixed, "train.val_fraction=0.25", *overrides])
    parts = build_parts(config)
    return parts, build_shards(config, parts), config.federation.num_clients


@pytest.mark.parametrize(
    "partition", ["iid", "dirichlet", "natural data.group=hospital", "size_skewed", "natural data.group=patient_id"]
)
def test_no_patient_is_on_two_sides(tmp_path: Path, partition: str) -> None:
    overrides = f"partition={partition} federation.num_clients=3 data.split_by=patient_id".split()
    parts, shards, count = shards_of(patients(tmp_path), *overrides)
    sides = [patient_of(parts.source.test().inputs)]
    for client in range(count):
        data = shards.of(client)
        sides += [patient_of(data.train.inputs), patient_of(data.validation.inputs)]
    assert sum(map(len, sides)) == len(set.union(*sides))  # disjoint
    assert len(sides[0]) > 3
    if "patient_id" not in partition:
        assert len(set.union(*sides)) == 42
        assert all(sides[2::2])  # each client has some for validation


def test_without_it_they_are_and_a_warning_names_the_override(tmp_path: Path) -> None:
    path = patients(tmp_path)
    source = CsvTable("ill", str(path), numeric=["dose"], categorical={})
    pooled = source.pooled()
    assert pooled.test is not None
    assert patient_of(pooled.train.inputs) & patient_of(pooled.test.inputs)
    assert "column 'patient_id' has 42 values" in source.findings().warnings[0]
    assert source.findings().warnings[0].endswith("set data.split_by=patient_id")
    grouped = CsvTable("ill", str(path), numeric=["dose"], categorical={}, split_by="patient_id")
    assert grouped.findings().warnings == ()
    assert "groups      1: patient_id" in grouped.findings().facts


def test_a_device_keeps_its_patients_whole_too(tmp_path: Path) -> None:
    path = patients(tmp_path)
    fixed = "data=csv data.label=ill model=mlp data.numeric=[dose] data.categorical={} data.classes=[no,yes]"
    config = compose([*fixed.split(), "data.split_by=patient_id", "train.val_fraction=0.25"])
    data = build_shards(config, build_parts(config), path).of(0)
    assert data.validation
    assert not patient_of(data.train.inputs) & patient_of(data.validation.inputs)


def test_what_is_held_out_by_time_comes_last(tmp_path: Path) -> None:
    rows = "".join(f"{i},{1 + i % 28:02d}.{1 + i // 28:02d}.2021,{i % 2}\n" for i in range(140))
    (tmp_path / "t.csv").write_text("n,day,y\n" + rows)
    source = CsvTable("y", str(tmp_path / "t.csv"), split_time="day")
    pooled = source.pooled()
    assert pooled.test is not None
    assert source.schema().features == ("n",)
    assert pooled.test.inputs.flatten().tolist() == [float(i) for i in range(112, 140)]


@pytest.mark.parametrize(
    ("extra", "overrides", "error", "parts"),
    [
        (
            ",h1,2021-01-01,3,yes\n",
            ["data.split_by=patient_id"],
            DataError,
            ["patients.csv", "column 'patient_id'", "row"],
        ),
        ("p50,h1,later,3,yes\n", ["data.split_time=day"], DataError, ["column 'day'", "'later'", "neither"]),
        ("p50,h1,2021-01-01,3,yes\n", ["data.split_by=nobody"], DataError, ["no column 'nobody'"]),
        (
            "p01,h2,2021-01-01,1,yes\n",
            ["data.split_by=patient_id", "data.group=hospital", "partition=natural"],
            ConfigError,
            ["data.split_by", "'h1', 'h2'", "'hospital'"],
        ),
        (
            "",
            ["data.split_by=patient_id", "federation.num_clients=43", "partition=iid"],
            ConfigError,
            ["federation.num_clients=43", "groups"],
        ),
    ],
)
def test_what_cannot_be_split_so_is_refused(
    tmp_path: Path, extra: str, overrides: list[str], error: type[Exception], parts: list[str]
) -> None:
    path = patients(tmp_path, extra)
    with pytest.raises(error) as raised:
        shards_of(path, "federation.num_clients=3", "data.test_fraction=0", *overrides)[1].load()
    assert [part for part in parts if part not in str(raised.value)] == [], str(raised.value)
