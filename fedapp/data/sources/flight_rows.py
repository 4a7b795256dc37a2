"""The flights of data=flights as rows, each with its plane and its weather: one table that airlines could share."""

from dataclasses import dataclass

import numpy as np
import torch

from fedapp.data.held_out import hold_out
from fedapp.data.source import DataSource, Examples, Pooled, Scaling, Schema
from fedapp.data.sources.flights import LATE, Flights, check_sample, days_of, minutes

__all__ = ["FlightRows"]

# Round numbers near a middle and a spread that are known of any airline: no company has to tell its own.
NUMBERS = {
    "departure": (810.0, 280.0),  # minute of the day
    "arrival": (900.0, 300.0),
    "distance": (1000.0, 700.0),  # miles
    "latitude": (36.0, 6.0),
    "longitude": (-90.0, 15.0),
    "year": (2001.0, 7.0),  # of the plane
    "seats": (140.0, 70.0),
    "engines": (2.0, 0.2),
    "temp": (57.0, 18.0),  # of the weather at the airport in the hour of the scheduled departure
    "dewp": (41.0, 19.0),
    "humid": (60.0, 19.0),
    "wind_speed": (11.0, 5.0),
    "wind_gust": (25.0, 6.0),
    "precip": (0.0, 0.03),
    "pressure": (1018.0, 7.0),
    "visib": (9.3, 2.0),
}
ONES = (*(f"weekday={number}" for number in range(7)), *(f"origin={name}" for name in ("EWR", "JFK", "LGA")))


@dataclass(frozen=True)
class FlightRows(DataSource):
    """Whether a flight came more than 15 minutes late, from what was scheduled, the plane by the registry, and the
    weather in the hour of the scheduled departure: nothing that is known only after it. `carrier` splits the rows.

    A row's time is its day, so that the latest days are held out, each as a whole. Values that are missing (one flight
    in six is by a plane that the registry does not have) are NaN, which the input layer takes for the middle.
    `sample`: every n-th day alone.
    """

    test_fraction: float = 0.0
    sample: int = 5

    def __post_init__(self) -> None:
        check_sample(self.test_fraction, self.sample)

    def schema(self) -> Schema:
        offset = (*(middle for middle, _ in NUMBERS.values()), *(0.0,) * len(ONES))
        scale = (*(spread for _, spread in NUMBERS.values()), *(1.0,) * len(ONES))
        names = (*NUMBERS, *ONES)
        return Schema((len(names),), ("on time", "late"), names, Scaling("fixed", offset, scale), impute=True)

    def test(self) -> Examples | None:
        return self.pooled().test if self.test_fraction else None  # without it there is nothing to read

    def pooled(self) -> Pooled:
        source = Flights(sample=self.sample)
        flights = source.flights
        airports = source.read("airports.csv").set_index("faa")
        planes = source.read("planes.csv").set_index("tailnum")[["year", "seats", "engines"]]
        day = days_of(flights)
        columns = {
            "departure": minutes(flights["sched_dep_time"]),
            "arrival": minutes(flights["sched_arr_time"]),
            "distance": flights["distance"],
            "latitude": flights["dest"].map(airports["lat"]),
            "longitude": flights["dest"].map(airports["lon"]),
        }
        columns |= {name: flights["tailnum"].map(planes[name]) for name in planes}
        there = flights[["origin", "time_hour"]].merge(source.weather, on=["origin", "time_hour"], how="left")
        columns |= {name: there[name] for name in NUMBERS if name not in columns}
        columns |= {f"weekday={number}": day.dt.day_of_week == number for number in range(7)}
        columns |= {name: flights["origin"] == name.removeprefix("origin=") for name in ONES if name not in columns}
        table = [columns[name].to_numpy(np.float32, na_value=np.nan) for name in (*NUMBERS, *ONES)]
        examples = Examples(
            torch.from_numpy(np.stack(table, 1)),
            torch.from_numpy((flights["arr_delay"] > LATE).to_numpy(np.int64, copy=True)),
            times=torch.from_numpy(day.dt.day_of_year.to_numpy(np.float64, copy=True)),
        )
        carriers = {"carrier": flights["carrier"].tolist()}
        return hold_out(examples, fraction=self.test_fraction, seed=0, name="flight_rows", columns=carriers)
