"""Models of text on text that none of them has learnt from: their metrics, and how they differ, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from fedapp.compare.bootstrap import Drawn, Interval, interval, resamples
from fedapp.data.source import Examples
from fedapp.learning.tasks.next_token import NextToken

__all__ = ["Difference", "HeldOut", "JudgedText", "Row"]

DRAWS = 1000


@dataclass(frozen=True)
class HeldOut:
    """Windows that no model has learnt from. `units`: rows that are drawn together, those of one client."""

    name: str
    examples: Examples
    units: tuple[Tensor, ...]


@dataclass(frozen=True)
class Row:
    """A model on held-out text: by metric, with the interval over clients."""

    model: str
    on: str
    metrics: Mapping[str, Interval]


@dataclass(frozen=True)
class Difference:
    """What `model` has of a metric more than another on the same text, and how many times as much; both paired by the
    clients that are drawn."""

    model: str
    than: str
    on: str
    metric: str
    difference: Interval
    ratio: Interval


class JudgedText:
    """What models of `task` say of held-out text. `seed` draws the clients of the bootstrap."""

    def __init__(self, task: NextToken, seed: int) -> None:
        self._task, self._seed = task, seed
        self.scores: dict[tuple[str, str], Tensor] = {}  # by model and name of what it was judged on
        self._held_out: dict[str, HeldOut] = {}
        self._figures: dict[tuple[str, str, str], Drawn] = {}  # rows and differences are of the same

    def judge(self, name: str, model: nn.Module, held: HeldOut) -> None:
        self.add(name, held, self._task.judge(model, held.examples)[1])

    def add(self, name: str, held: HeldOut, scores: Tensor) -> None:
        """`scores`: of each token of `held`, as the task's metrics take them. A model is judged on a text once."""
        assert (name, held.name) not in self.scores
        self.scores[name, held.name] = scores
        self._held_out[held.name] = held

    def rows(self) -> list[Row]:
        """In the order in which they were judged."""
        return [
            Row(name, on, {metric: interval(self._drawn(name, on, metric)) for metric in self._task.metrics})
            for name, on in self.scores
        ]

    def differences(self, metrics: Sequence[str]) -> list[Difference]:
        """On each text, of the model that was judged last there, to each of the others."""
        found = []
        for on in self._held_out:
            *others, last = [name for name, where in self.scores if where == on]
            for other in others:
                for metric in metrics:
                    mine, its = (self._drawn(name, on, metric) for name in (last, other))
                    more, times = mine.minus(its), mine.over(its)
                    found.append(Difference(last, other, on, metric, interval(more), interval(times)))
        return found

    def _drawn(self, name: str, on: str, metric: str) -> Drawn:
        key = (name, on, metric)
        if key not in self._figures:
            held, scores, by = self._held_out[on], self.scores[name, on], self._task.metrics[metric]
            counts, targets = resamples(held.units, DRAWS, self._seed), held.examples.targets
            self._figures[key] = Drawn(by(scores, targets), by.on_draws(scores, targets, counts).numpy())
        return self._figures[key]
