"""The rounds of a run: this is where a round happens, from top to bottom."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from logging import INFO

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.common.logger import log
from flwr.serverapp import Grid
from torch import Tensor, nn

from fedapp.data.source import Examples
from fedapp.errors import FederationError
from fedapp.federation.exchange import exchange
from fedapp.federation.outcome import federated_metrics
from fedapp.federation.record import RunRecord
from fedapp.federation.stopping import StopRules
from fedapp.federation.strategy import WeightedFedAvg
from fedapp.task import Task
from fedapp.wire.records import arrays_to_state, state_to_arrays

__all__ = ["Federation", "Result"]

Figures = dict[str, float | int | None]
State = dict[str, Tensor]


@dataclass(frozen=True)
class Result:
    """`failed` is None for a run that came to its end, else why it did not; `state` is the last good model."""

    state: State
    rounds: int
    stop_reason: str
    failed: str | None
    test: Figures
    final: Figures


@dataclass
class Federation:
    """A run's parts. `model` serves central evaluation on `test`, where the server has such data."""

    grid: Grid
    strategy: WeightedFedAvg
    task: Task
    model: nn.Module
    test: Examples | None
    record: RunRecord
    rules: StopRules
    num_rounds: int
    round_timeout: float
    final_evaluation: bool = True

    def run(self) -> Result:
        """All rounds, or as many as the stop rules allow."""
        arrays = state_to_arrays(self.model.state_dict())
        test = self._evaluate(arrays)
        self.record.add_round({"round": 0, **test}, None)
        reason, failed, done = "all rounds done", None, 0
        try:
            for server_round in range(1, self.num_rounds + 1):
                arrays, test, judged = self._round(server_round, arrays)
                done = server_round
                if stop := self.rules.update(server_round, changed=self.strategy.outcome.changed, **judged):
                    reason = stop
                    break
            self.rules.check_end()
        except FederationError as error:
            reason = failed = str(error)
        final = self._evaluate_on_clients(done, arrays) if self.final_evaluation and failed is None else {}
        return Result(arrays_to_state(arrays), done, reason, failed, test, final)

    def _round(self, server_round: int, arrays: ArrayRecord) -> tuple[ArrayRecord, Figures, dict[str, float | None]]:
        """One round: the next model, its central evaluation, and the accuracy and loss that stop rules go by."""
        clock = Clock()
        messages = self.strategy.configure_train(server_round, arrays, ConfigRecord(), self.grid)
        clock.lap("other")
        replies = clock.waiting("clients", exchange(self.grid, messages, self.round_timeout))
        aggregated, _ = self.strategy.aggregate_train(server_round, replies)
        clock.lap("aggregate")
        arrays = aggregated if aggregated is not None else arrays
        test = self._evaluate(arrays)
        clock.lap("evaluate")
        outcome = self.strategy.outcome
        federated = federated_metrics(list(outcome.reports.values()), self.task.main_metric)
        figures: Figures = {
            "round": server_round,
            "seconds": clock.total(),
            **clock.phases(),
            **test,
            "train_loss": outcome.train_loss,
            **federated,
            "cohort": len(outcome.weights),
            "replied": len(outcome.good),
            "rejected": outcome.rejected,
            "bytes_up": outcome.bytes_up,
            "bytes_down": outcome.bytes_down,
        }
        self.record.add_round(figures, outcome)
        log(INFO, "round %d/%d  %s", server_round, self.num_rounds, _line(figures))
        # Without test data on the server, the clients' validation splits decide.
        judged = {name: test.get(f"test_{name}", federated.get(f"val_{name}")) for name in ("accuracy", "loss")}
        return arrays, test, judged

    def _evaluate(self, arrays: ArrayRecord) -> Figures:
        """Central evaluation, as test_<name>; empty where the server has no test data."""
        if self.test is None:
            return {}
        self.model.load_state_dict(arrays_to_state(arrays))
        judged = self.task.evaluate(self.model, self.test)
        if judged is None:
            return {}
        return {"test_loss": judged.loss, **{f"test_{name}": value for name, value in judged.metrics.items()}}

    def _evaluate_on_clients(self, server_round: int, arrays: ArrayRecord) -> Figures:
        """Federated evaluation of the final model, on every client."""
        messages = self.strategy.configure_evaluate(server_round, arrays, ConfigRecord(), self.grid)
        self.strategy.aggregate_evaluate(server_round, exchange(self.grid, messages, self.round_timeout))
        outcome = self.strategy.outcome
        self.record.add_final(outcome)
        figures = federated_metrics(outcome.good, self.task.main_metric)
        return {f"final_{name}": value for name, value in figures.items()}


class Clock:
    """Seconds of a round by phase. What is spent waiting inside a lap can be booked on a phase of its own."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._phases = dict.fromkeys(("clients", "aggregate", "evaluate", "other"), 0.0)

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self._phases[phase] += now - self._last
        self._last = now

    def waiting(self, phase: str, items: Iterator[Message]) -> Iterator[Message]:
        """`items`, with the time until each one comes booked on `phase`, and what is done with it on "aggregate"."""
        while True:
            self.lap("aggregate")
            item = next(items, None)
            self.lap(phase)
            if item is None:
                return
            yield item

    def total(self) -> float:
        return time.perf_counter() - self._start

    def phases(self) -> dict[str, float]:
        return {f"seconds_{name}": value for name, value in self._phases.items()}


def _line(figures: Mapping[str, float | int | None]) -> str:
    """A round in one line for the terminal."""
    names = [name for name in figures if name.startswith("test_")] or [n for n in figures if n.startswith("val_")]
    parts = [f"{name} {value:.4f}" for name in names if (value := figures[name]) is not None]
    counts = f"{figures['replied']}/{figures['cohort']} clients"
    return "  ".join([*parts, counts, f"{figures['seconds']:.2f} s"])
