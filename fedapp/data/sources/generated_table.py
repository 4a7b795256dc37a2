"""What generated tables of several sites have in common: columns made site by site, and named synthetic everywhere."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from fedapp.common.errors import ConfigError
from fedapp.data.checks import check_fraction
from fedapp.data.held_out import hold_out
from fedapp.data.source import DataSource, Examples, Pooled, Scaling, Schema

__all__ = ["GeneratedTable", "Made"]

Made = tuple[Mapping[str, NDArray[np.float64]], NDArray[np.int64]]  # columns by name, and the label's index


@dataclass(frozen=True)
class GeneratedTable(DataSource):
    """`num_sites` sites of different sizes, together about `num_examples` rows; `site` splits them. `seed` of all that
    is drawn. Raises ConfigError for bad values."""

    columns: ClassVar[Mapping[str, tuple[float, float]]]  # by name, a middle and a spread, for scaling
    classes: ClassVar[tuple[str, ...]]
    site_name: ClassVar[str]
    num_sites: int = 8
    num_examples: int = 20000
    seed: int = 0
    test_fraction: float = 0.0

    def __post_init__(self) -> None:
        check_fraction(self.test_fraction, "data.test_fraction")
        if self.num_sites < 1 or self.num_examples < 50 * self.num_sites:
            raise ConfigError(
                f"data.num_sites={self.num_sites}, data.num_examples={self.num_examples}: give one site or more, and 50"
                " rows for each"
            )

    @abstractmethod
    def site(self, number: int, rows: int, random: np.random.Generator) -> Made:
        """The rows of one site."""

    def sizes(self) -> Sequence[int]:
        """Rows by site: each but the first has four fifths of what the one before it has."""
        shares = 0.8 ** np.arange(self.num_sites)
        return [max(50, int(size)) for size in shares / shares.sum() * self.num_examples]

    def schema(self) -> Schema:
        offset, scale = zip(*self.columns.values(), strict=True)
        return Schema((len(self.columns),), self.classes, tuple(self.columns), Scaling("fixed", offset, scale))

    def test(self) -> Examples | None:
        return self.pooled().test if self.test_fraction else None  # without it there is nothing to read

    def pooled(self) -> Pooled:
        inputs, targets, names = list[NDArray[np.float32]](), list[NDArray[np.int64]](), list[str]()
        for number, rows in enumerate(self.sizes()):
            made, labels = self.site(number, rows, np.random.default_rng((self.seed, number)))
            inputs.append(np.stack([made[name] for name in self.columns], 1).astype(np.float32))
            targets.append(labels)
            names += [f"{self.site_name} {number}"] * rows
        examples = Examples(torch.from_numpy(np.concatenate(inputs)), torch.from_numpy(np.concatenate(targets)))
        name = type(self).__name__
        return hold_out(examples, fraction=self.test_fraction, seed=self.seed, name=name, columns={"site": names})
