"""Synthetic milling machines by the published rules of AI4I 2020, which is synthetic by its author's design (Matzka,
"Explainable Artificial Intelligence for Predictive Maintenance Applications", AI4I 2020, https://doi.org/10.24432/C5HS5C).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedapp.data.checks import check_choice
from fedapp.data.source import Schema
from fedapp.data.sources.generated_table import GeneratedTable, Made

__all__ = ["SyntheticMachines"]

MODES = ("tool wear", "heat", "power", "overstrain", "random")
WEAR = {"L": 2.0, "M": 3.0, "H": 5.0}  # minutes that a product of this quality adds to its tool's
STRAIN = {"L": 11_000.0, "M": 12_000.0, "H": 13_000.0}  # minutes of wear times Nm


@dataclass(frozen=True)
class SyntheticMachines(GeneratedTable):
    """Whether a machine fails with a product, or in which of five modes (`target`: failure or mode).

    The rules: air temperature is a random walk around 300 K with a deviation of 2 K; the process is 10 K warmer, by a
    random walk of 1 K; torque is normal, 40 Nm with a deviation of 10, never negative; half of the products are of
    quality L, three in ten M, two in ten H. A tool fails or is replaced at a random wear of 200 to 240 minutes, and
    fails in 51 of 120 such cases; heat: the difference of temperatures is below 8.6 K and speed below 1380 1/min;
    power: torque times speed outside 3.5 to 9 kW; overstrain: wear times torque above 11,000 min Nm (M: 12,000, H:
    13,000); random: one in a thousand. Speed is what the paper says least of: here a power law of torque with noise
    that comes near the middle and the range of the published table.

    What is added to the rules is the difference between sites: quality mix, torque, and climate.
    """

    columns: ClassVar[Mapping[str, tuple[float, float]]] = {
        "air temperature, K": (300.0, 2.0),
        "process temperature, K": (310.0, 1.5),
        "speed, 1/min": (1540.0, 180.0),
        "torque, Nm": (40.0, 10.0),
        "tool wear, min": (108.0, 63.0),
        "quality=L": (0.0, 1.0),
        "quality=M": (0.0, 1.0),
        "quality=H": (0.0, 1.0),
    }
    classes: ClassVar[tuple[str, ...]] = ("runs", "fails")
    site_name: ClassVar[str] = "synthetic factory"
    target: Literal["failure", "mode"] = "failure"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.target, ("failure", "mode"), "data.target")

    def schema(self) -> Schema:
        found = super().schema()
        if self.target == "failure":
            return found
        return Schema(found.input_shape, ("none", *MODES), found.features, found.scaling)

    def site(self, number: int, rows: int, random: np.random.Generator) -> Made:
        mix = random.dirichlet((5.0, 3.0, 2.0))  # around the shares of the rules
        quality = np.array(["L", "M", "H"])[random.choice(3, rows, p=mix)]
        air = 300 + random.normal(0, 1) + _walk(rows, 2.0, random)
        process = air + 10 + _walk(rows, 1.0, random)
        torque = np.clip(random.normal(40 + random.normal(0, 2), 10, rows), 3.8, None)
        speed = 4550 * torque**-0.3 + random.normal(0, 60, rows)
        wear, worn = _wear(quality, random)
        power = torque * speed * 2 * np.pi / 60
        limit = np.array([STRAIN[one] for one in quality])
        failed = [
            worn,
            (process - air < 8.6) & (speed < 1380),
            (power < 3500) | (power > 9000),
            wear * torque > limit,
            random.random(rows) < 0.001,
        ]
        mode = np.zeros(rows, dtype=np.int64)
        for place in reversed(range(len(MODES))):
            mode[failed[place]] = place + 1
        values = (air, process, speed, torque, wear, *((quality == one).astype(float) for one in "LMH"))
        columns = dict(zip(self.columns, values, strict=True))
        return columns, mode if self.target == "mode" else (mode > 0).astype(np.int64)


def _walk(rows: int, deviation: float, random: np.random.Generator) -> NDArray[np.float64]:
    """A random walk around 0, scaled to this deviation."""
    walk = np.cumsum(random.normal(0, 1, rows))
    walk -= walk.mean()
    return walk * (deviation / max(float(walk.std()), 1e-9))


def _wear(quality: NDArray[np.str_], random: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Of each product the wear of its tool, and whether that tool fails with it."""
    wear, worn = np.zeros(len(quality)), np.zeros(len(quality), dtype=bool)
    now, end = 0.0, random.uniform(200, 240)
    for row, one in enumerate(quality):
        wear[row] = now
        now += WEAR[str(one)]
        if now >= end:
            worn[row] = random.random() < 51 / 120
            now, end = 0.0, random.uniform(200, 240)
    return wear, worn
