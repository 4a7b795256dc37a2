"""Random changes to images: each one rearranges an example's own pixels, and every example gets its own."""

import pytest
import torch
from torch import Tensor

from fedapp.common.errors import ConfigError
from fedapp.common.seeding import seeded
from fedapp.data.augmentation import CHANGES, augmentation
from fedapp.data.source import Schema

IMAGE = torch.arange(2 * 8 * 8, dtype=torch.uint8).reshape(1, 2, 8, 8)  # all pixels of a channel differ


def changed(name: str, images: Tensor) -> Tensor:
    with seeded(0):
        return CHANGES[name](images)


def moved(down: int, right: int) -> Tensor:
    rows, columns = (torch.arange(8) + down).clamp(0, 7), (torch.arange(8) + right).clamp(0, 7)
    return IMAGE[:, :, rows][:, :, :, columns]


EXPECTED = {
    "horizontal_flip": [IMAGE, IMAGE.flip(3)],
    "vertical_flip": [IMAGE, IMAGE.flip(2)],
    "quarter_turns": [IMAGE.rot90(turns, (2, 3)) for turns in range(4)],
    "shift": [moved(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)],
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_every_example_becomes_one_of_the_possible_ones_and_all_are_as_likely(name: str, dtype: torch.dtype) -> None:
    found = changed(name, IMAGE.to(dtype).expand(9000, -1, -1, -1))
    assert found.dtype == dtype
    counts = [int((found == expected).flatten(1).all(1).sum()) for expected in EXPECTED[name]]
    assert sum(counts) == 9000
    share = 9000 / len(counts)
    assert all(abs(count - share) < 5 * share**0.5 for count in counts)


def test_one_after_the_other_and_the_same_for_a_seed() -> None:
    both = augmentation(["horizontal_flip", "vertical_flip"], Schema((2, 8, 8)))
    assert both is not None
    with seeded(1):
        found = both(IMAGE.expand(200, -1, -1, -1))
    with seeded(1):
        assert torch.equal(both(IMAGE.expand(200, -1, -1, -1)), found)
    assert len({tuple(image.flatten().tolist()) for image in found}) == 4
    assert augmentation([], Schema((2, 8, 8))) is None


@pytest.mark.parametrize(
    ("names", "shape", "part"),
    [
        (["mirror"], (1, 8, 8), "'mirror' is not known; known: 'horizontal_flip', 'vertical_flip'"),
        (["shift", "shift"], (1, 8, 8), "names one of them twice"),
        (["shift"], (30,), "is for images"),
        (["quarter_turns"], (1, 8, 9), "quarter_turns needs images that are square"),
    ],
)
def test_what_cannot_be_is_refused(names: list[str], shape: tuple[int, ...], part: str) -> None:
    with pytest.raises(ConfigError, match=rf"train.augmentation.*{part}"):
        augmentation(names, Schema(shape))
