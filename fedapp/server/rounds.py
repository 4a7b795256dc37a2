"""The rounds of a run: this is where a round happens, from top to bottom."""

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from logging import INFO, WARNING
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.common.logger import log
from torch import nn

from fedapp.common.errors import FederationError
from fedapp.data.source import Examples
from fedapp.learning.task import Task
from fedapp.models.shared_state import load_shared, shared_state
from fedapp.server.clock import Clock
from fedapp.server.exchange import Exchange
from fedapp.server.outcome import federated_metrics, round_line
from fedapp.server.population.attendance import Attendance
from fedapp.server.result import Figures, Result
from fedapp.server.run_directory.checkpoint import Checkpoint
from fedapp.server.run_directory.checkpoint_writer import CheckpointWriter
from fedapp.server.run_directory.record import RunRecord
from fedapp.server.stopping import StopRules
from fedapp.server.strategy import WeightedFedAvg
from fedapp.server.threads import one_thread
from fedapp.wire.records import arrays_to_state, state_to_arrays

__all__ = ["Federation", "Result"]


@dataclass
class Federation:
    """A run's parts. `model` serves central evaluation on `test`, where the server has such data: what the model takes.

    With `deliver` the clients are given the last model. A checkpoint is written every `checkpoint_every` rounds and at
    the end. `about` goes into each: `config`, as JSON, and `overrides`.
    """

    exchange: Exchange
    attendance: Attendance
    strategy: WeightedFedAvg
    task: Task
    model: nn.Module
    test: Examples | None
    record: RunRecord
    rules: StopRules
    round_timeout: float
    final_evaluation: bool = True
    deliver: bool = False
    checkpoint_every: int = 1
    about: Mapping[str, Any] = field(default_factory=dict)
    start: float = field(default_factory=time.perf_counter)  # of this process's part of the run
    _arrays: ArrayRecord = field(default_factory=ArrayRecord)
    _figures: Figures = field(default_factory=dict)  # central evaluation of the model as it is now
    _seconds_before: float = 0.0  # of running, before this process
    _seconds_of_checkpoint: float = 0.0
    _checkpoints: CheckpointWriter = field(init=False)
    _name: str = field(default_factory=lambda: secrets.token_hex(8))  # of this run, however often it is resumed

    def __post_init__(self) -> None:
        self._checkpoints = CheckpointWriter(self.record.directory / "checkpoint")

    def run(self, resumed: Checkpoint | None = None) -> Result:
        """All rounds, or as many as the stop rules allow; from the beginning, or from a checkpoint."""
        try:
            return self._run(resumed)
        finally:
            self._checkpoints.finish()

    def _run(self, resumed: Checkpoint | None) -> Result:
        if resumed is None:
            self._begin()
        else:
            self._restore(resumed)
        failed = None
        try:
            while (reason := self.rules.reason()) is None:
                self._round(self.rules.progress.round + 1)
        except FederationError as error:
            reason = failed = str(error)
        done = self.rules.progress.round
        if done % self.checkpoint_every:
            self._save()
        self._checkpoints.finish()  # before clients keep a result that the server could lose
        final: Figures = {}
        delivered = 0
        if (self.final_evaluation or self.deliver) and failed is None:
            final, delivered = self._evaluate_on_clients(done)
        return Result(arrays_to_state(self._arrays), done, reason, failed, self._figures, final, delivered)

    @property
    def seconds(self) -> float:
        """How long the run has been running, resumptions included."""
        return self._seconds_before + time.perf_counter() - self.start

    def _round(self, server_round: int) -> None:
        """One round: who is there, messages out, replies in, the next model, its evaluation, its record."""
        clock, strategy = Clock(self._seconds_of_checkpoint), self.strategy
        self._seconds_of_checkpoint = 0.0
        self._checkpoints.check()
        late = self.attendance.update()

        def ask(messages: Iterable[Message], timeout: float | None) -> Iterator[Message]:
            clock.lap("other")
            with one_thread(self.attendance.is_simulation):
                yield from clock.waiting("clients", self.exchange(messages, timeout or self.round_timeout))

        aggregated = strategy.train(server_round, self._arrays, self._about(), ask, self.exchange.grid, late)
        clock.lap("aggregate")
        if aggregated is not None:
            self._arrays = aggregated
        self._figures = self._evaluate()
        clock.lap("evaluate")
        self._note_round(clock)
        if server_round % self.checkpoint_every == 0:
            self._save()

    def _note_round(self, clock: Clock) -> None:
        """The round that is over: into the run directory, onto the terminal, into the stop rules."""
        outcome = self.strategy.outcome
        federated = outcome.federated(self.task.main_metric, self.strategy.roster.num_examples)
        times = {"time": time.time(), "seconds": clock.total(), **clock.phases()}
        figures = outcome.figures(times, self._figures, federated, self.record.epsilon_figures(outcome))
        self.record.add_round(figures, outcome)
        log(INFO, "round %d/%d  %s", outcome.server_round, self.rules.num_rounds, round_line(figures))
        # Without test data on the server, the clients' validation splits decide.
        names = ("loss", *self.task.metrics)
        judged = {name: self._figures.get(f"test_{name}", federated.get(f"val_{name}")) for name in names}
        roster = self.strategy.roster
        spent = bool(roster.declined) and len(roster.nodes.keys() - roster.declined) < self.strategy.min_clients
        self.rules.update(changed=outcome.changed, judged=judged, seconds=self.seconds, budget_spent=spent)

    # --- the beginning, and going on ----------------------------------------------------------------------------

    def _begin(self) -> None:
        self._arrays = state_to_arrays(shared_state(self.model))
        self._figures = self._evaluate()
        self.record.add_round({"round": 0, "time": time.time(), **self._figures}, None)
        self._save()
        self._checkpoints.finish()  # from now on there is always one to go on from

    def _save(self) -> None:
        """The whole server state, as it is now, goes into the run directory."""
        start = time.perf_counter()
        done = self.rules.progress.round
        values = {
            **self.record.state_dict(done),
            "name": self._name,
            "rules": self.rules.state_dict(),
            "roster": self.strategy.roster.state_dict(),
            "figures": self._figures,
            "overrides": self.about.get("overrides", []),
        }
        checkpoint = Checkpoint(
            server_round=done,
            model=arrays_to_state(self._arrays),
            optimizer=self.strategy.server_optimizer.state_dict(),
            values=values,
            config=self.about.get("config", {}),
        )
        self._checkpoints.write(checkpoint)
        self._seconds_of_checkpoint = time.perf_counter() - start

    def _restore(self, saved: Checkpoint) -> None:
        model = {name: saved.model[name] for name in shared_state(self.model)}  # in the order of a new run
        self._name = saved.values["name"]
        self.rules.load_state_dict(saved.values["rules"])
        self.strategy.roster.load_state_dict(saved.values["roster"])
        self.strategy.server_optimizer.load_state_dict(dict(saved.optimizer), model)
        self._arrays = state_to_arrays(model)
        self._figures = saved.values["figures"]
        self._seconds_before = self.rules.progress.seconds
        log(INFO, "going on after round %d", saved.server_round)

    # --- evaluation ---------------------------------------------------------------------------------------------

    def _evaluate(self) -> Figures:
        """Central evaluation, as test_<name>; empty where the server has no test data."""
        if self.test is None:
            return {}
        load_shared(self.model, arrays_to_state(self._arrays))
        judged = self.task.evaluate(self.model, self.test)
        if judged is None:
            return {}
        return {"test_loss": judged.loss, **{f"test_{name}": value for name, value in judged.metrics.items()}}

    def _about(self, *, deliver: bool = False) -> ConfigRecord:
        """What messages say besides the strategy's instructions."""
        return ConfigRecord({"run": self._name, "deliver": deliver})

    def _evaluate_on_clients(self, server_round: int) -> tuple[Figures, int]:
        """Federated evaluation of the final model, on every client that is there; how many have kept it."""
        strategy = self.strategy
        late = self.attendance.update()
        messages = strategy.configure_evaluate(
            server_round, self._arrays, self._about(deliver=self.deliver), self.exchange.grid
        )
        strategy.outcome.add_late(late)
        strategy.aggregate_evaluate(server_round, self.exchange(messages, self.round_timeout))
        self.record.add_final(strategy.outcome)
        good = strategy.outcome.good
        figures = federated_metrics(good, self.task.main_metric, strategy.roster.num_examples)
        delivered = sum(report.delivered for report in good)
        if self.deliver and delivered < len(good):
            log(WARNING, "%d of %d clients keep the result: others have no keep-path", delivered, len(good))
        final = {f"final_{name}": value for name, value in figures.items()} if self.final_evaluation else {}
        return final, delivered
