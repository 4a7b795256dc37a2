"""Which of Opacus's ways is chosen."""

import pytest
from torch import nn

from fedapp.privacy.check import choose_mode


@pytest.mark.parametrize(("width", "batch_size", "mode"), [(20, 16, "ew"), (200, 64, "ghost"), (20, 10_000, "ghost")])
def test_large_gradients_are_not_made_for_every_example(width: int, batch_size: int, mode: str) -> None:
    model = nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))
    found, reason = choose_mode(model, batch_size)
    assert found == mode
    assert str(batch_size) in reason


def test_frozen_parameters_do_not_count() -> None:
    model = nn.Sequential(nn.Linear(784, 2000), nn.Linear(2000, 10))
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    assert choose_mode(model, 32)[0] == "ew"
