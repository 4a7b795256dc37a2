"""How much the shares of twenty companies move from week to week (package skfolio, BSD-3-Clause)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fedapp.common.errors import ConfigError
from fedapp.data.checks import check_fraction
from fedapp.data.held_out import hold_out
from fedapp.data.package_file import package_file
from fedapp.data.source import DataSource, Examples, Pooled, Scaling, Schema

__all__ = ["StockPrices"]

FILES = {  # SHA-256 of those of skfolio 1.12.2
    "sp500_dataset.csv.gz": "ee21cac28befb1d0a739a9ceb22184f995394726aa0cfde9a21941d1ac04ac0d",
    "sp500_index.csv.gz": "894c34431c284f86aa64a467e176e2a3c9b697c857eb9ab35006c2dd55d3fdf2",
}
DAYS = 5  # of trading in a week
QUARTER = 13  # weeks that no split separates, and that are resampled together
LEAST = 0.1  # per cent a day, added to a volatility so that a week without a change has a logarithm
# What is seen of each past week, and round numbers near a middle and a spread that anybody knows of shares.
FEATURES = {
    "own volatility": (0.3, 0.6),  # natural logarithm of per cent a day
    "own return": (0.0, 5.0),  # per cent
    "index volatility": (-0.1, 0.6),
    "index return": (0.0, 2.5),
}


@dataclass(frozen=True)
class StockPrices(DataSource):
    """The volatility of the coming week, from the `window` weeks before it: daily closing prices of twenty companies of
    the S&P 500 and of the index, 1990 to 2022. `company` splits the examples.

    A week is five days of trading, and no two overlap. Its volatility is the root of the mean squared daily change of
    the logarithm of the price; the target is the logarithm of that, of the company's own share or of the index
    (`target`). Repeating the last week is the naive forecast of MASE. A row's time is its week's first day, and its
    group the quarter, so that the latest quarters are held out. Inputs are (4 x window,), feature by feature, the
    oldest week first.
    """

    target: Literal["own", "index"] = "own"
    window: int = 12
    test_fraction: float = 0.0

    def __post_init__(self) -> None:
        check_fraction(self.test_fraction, "data.test_fraction")
        if not 1 <= self.window <= 52:
            raise ConfigError(f"data.window={self.window}: must lie in 1..52 weeks")

    def schema(self) -> Schema:
        steps = range(self.window, 0, -1)
        names = tuple(f"{name}[-{step}]" for name in FEATURES for step in steps)
        offset = tuple(middle for middle, _ in FEATURES.values() for _ in steps)
        scale = tuple(spread for _, spread in FEATURES.values() for _ in steps)
        return Schema((len(names),), features=names, scaling=Scaling("fixed", offset, scale), steps=self.window)

    def test(self) -> Examples | None:
        return self.pooled().test if self.test_fraction else None  # without it there is nothing to read

    def pooled(self) -> Pooled:
        companies, days, prices = _prices("sp500_dataset.csv.gz")
        _, _, index = _prices("sp500_index.csv.gz")
        market = _weeks(index[:, 0])
        inputs, targets = [], []
        for own in (_weeks(prices[:, number]) for number in range(len(companies))):
            # (features, weeks) to (weeks, features, window), without the last window, which no week follows
            seen = np.lib.stride_tricks.sliding_window_view(np.stack([*own, *market]), self.window, axis=1)
            inputs.append(seen.transpose(1, 0, 2)[:-1].reshape(-1, len(FEATURES) * self.window))
            targets.append((own if self.target == "own" else market)[0][self.window :])
        count = len(targets[0])
        week = np.arange(self.window, self.window + count)
        examples = Examples(
            torch.from_numpy(np.concatenate(inputs).astype(np.float32)),
            torch.from_numpy(np.concatenate(targets).astype(np.float32)),
            groups=torch.from_numpy(np.concatenate([n * count + week // QUARTER for n in range(len(companies))])),
            times=torch.from_numpy(np.tile(days[1 + week * DAYS], len(companies))),
        )
        names = {"company": [name for name in companies for _ in range(count)]}
        return hold_out(examples, fraction=self.test_fraction, seed=0, name="stock_prices", columns=names)


def _weeks(prices: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """By whole week, the logarithm of the volatility in per cent a day, and the return in per cent."""
    changes = 100 * np.diff(np.log(prices))
    changes = changes[: len(changes) // DAYS * DAYS].reshape(-1, DAYS)
    return np.log(np.sqrt(np.square(changes).mean(1)) + LEAST), changes.sum(1)


def _prices(name: str) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Names of the columns, days (n,) since 1970, and prices (n, columns), of which none is missing."""
    path = package_file("data=stock_prices", "skfolio", f"datasets/data/{name}", FILES[name], "market")
    import pandas as pd  # type: ignore[import-untyped, unused-ignore]

    table = pd.read_csv(path, index_col=0)
    days = np.asarray(table.index, dtype="datetime64[D]").astype(np.float64)
    return [str(column) for column in table.columns], days, table.to_numpy(np.float64)
