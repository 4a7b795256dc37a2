"""Exercises recorded by a watch (package seglearn, BSD; Burns et al., Physiological Measurement 39, 2018)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fedapp.common.errors import ConfigError
from fedapp.data.package_file import package_file
from fedapp.data.source import DataSource, Examples, Pooled, Scaling, Schema

__all__ = ["Watch"]

FILE, SHA256 = "data/watch_dataset.npy", "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
PEOPLE = 10
AXES = ("ax", "ay", "az", "wx", "wy", "wz")  # acceleration in g, rate of turn in rad/s
SPREAD = (0.6, 0.6, 0.6, 1.0, 1.0, 1.0)
EXERCISES = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")


@dataclass(frozen=True)
class Watch(DataSource):
    """Which of seven shoulder exercises a person does, from windows of `window` samples of six axes at 50 Hz.

    `person` splits the windows; no split separates those of one recording. `test_people`: so many people, drawn with
    `split_seed`, whom no client has: the server's test data. Inputs are (6 x window,), axis by axis.
    """

    window: int = 100
    test_people: int = 3
    split_seed: int = 0

    def __post_init__(self) -> None:
        if not 8 <= self.window <= 400:
            raise ConfigError(f"data.window={self.window}: must lie in 8..400 samples of a 50th of a second")
        if not 0 <= self.test_people < PEOPLE:
            raise ConfigError(f"data.test_people={self.test_people}: must lie in 0..{PEOPLE - 1}")

    def schema(self) -> Schema:
        names = tuple(f"{axis}[{step}]" for axis in AXES for step in range(self.window))
        scale = tuple(spread for spread in SPREAD for _ in range(self.window))
        scaling = Scaling("fixed", (0.0,) * len(names), scale)
        return Schema((len(names),), EXERCISES, names, scaling, steps=self.window)

    def pooled(self) -> Pooled:
        path = package_file("data=watch", "seglearn", FILE, SHA256, "wearables")
        # The file holds Python objects, which could run code as they are read: it is known to be the one looked at.
        found: dict[str, Any] = np.load(path, allow_pickle=True).item()
        windows, targets, recordings, people = [], list[int](), list[int](), list[int]()
        rows = zip(found["X"], found["y"], found["subject"], strict=True)
        for number, (samples, exercise, person) in enumerate(rows):
            count = len(samples) // self.window
            shaped = samples[: count * self.window, :6].reshape(count, self.window, 6)
            windows.append(shaped.transpose(0, 2, 1).reshape(count, -1))
            targets += [int(exercise)] * count
            recordings += [number] * count
            people += [int(person)] * count
        inputs = torch.from_numpy(np.concatenate(windows).astype(np.float32))
        every = Examples(inputs, torch.tensor(targets), groups=torch.tensor(recordings))
        who = torch.tensor(people)
        known = torch.unique(who)
        order = torch.randperm(len(known), generator=torch.Generator().manual_seed(self.split_seed))
        away = torch.isin(who, known[order[: self.test_people]])
        test = every.take(away.nonzero().flatten()) if self.test_people else None
        if test is not None:  # what is drawn of them is whole people
            test = Examples(test.inputs, test.targets, groups=who[away])
        named = {"person": [f"person {int(person)}" for person in who[~away]]}
        return Pooled(every.take((~away).nonzero().flatten()), test, named)
