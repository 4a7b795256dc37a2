"""Photographs of solar cells from a factory, sound or defective: a data set that a Python package carries."""

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.checks import check_fraction
from fedapp.data.held_out import hold_out
from fedapp.data.image_files import Reading, decode, images_in
from fedapp.data.pixels import PIXEL_SCALING
from fedapp.data.source import DataSource, Examples, Pooled, Schema

__all__ = ["SolarCells"]


@dataclass(frozen=True)
class SolarCells(DataSource):
    """2624 grey photographs of solar cells, 300 by 300 pixels, shown at `size` by `size` (Buerhop-Lutz et al. 2018;
    Deitsch et al. 2019, https://github.com/zae-bayern/elpv-dataset). A cell counts as defective where experts gave a
    defect a probability above one half. `group`: the column cell_type, mono or poly crystalline, to split by.

    The photographs are licensed CC BY-NC-SA 4.0: not for commercial use.
    """

    size: int
    test_fraction: float
    split_seed: int
    group: Literal["cell_type"] | None

    def __post_init__(self) -> None:
        check_fraction(self.test_fraction, "data.test_fraction")
        if self.size < 8:
            raise ConfigError(f"data.size={self.size}: must be at least 8")

    def schema(self) -> Schema:
        return Schema((1, self.size, self.size), classes=("sound", "defective"), scaling=PIXEL_SCALING)

    def pooled(self) -> Pooled:
        folder = _folder()
        rows = [line.split() for line in (folder / "labels.csv").read_text().splitlines() if line.strip()]
        images = _photographs(tuple(folder / name for name, _, _ in rows), self.size)
        targets = torch.tensor([int(float(probability) > 0.5) for _, probability, _ in rows])
        return hold_out(
            Examples(images, targets),
            fraction=self.test_fraction,
            seed=self.split_seed,
            name="solar",
            columns={self.group: [kind for _, _, kind in rows]} if self.group else {},
        )

    def unlabelled(self, path: Path) -> tuple[Tensor, list[str]]:
        return images_in(path, Reading(self.size, channels=1))


@lru_cache(maxsize=1)
def _photographs(files: tuple[Path, ...], size: int) -> Tensor:
    """All of them, once in a process: decoding takes seconds."""
    return decode(list(files), Reading(size, channels=1)).pixels


def _folder() -> Path:
    spec = find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("data=solar: the Python package elpv-dataset is not installed: pip install -e '.[solar]'")
    return Path(next(iter(spec.submodule_search_locations))) / "data"
