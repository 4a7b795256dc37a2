"""A run around its procedure: round after round until a stop rule holds, recorded and checkpointed as it goes."""

import secrets
import time
from collections.abc import Callable, Mapping
from logging import INFO, WARNING
from typing import Any

from torch import Tensor

from fedapp.common.errors import FederationError
from fedapp.common.logger import log
from fedapp.server.clock import Clock
from fedapp.server.ending import Ending, Result
from fedapp.server.outcome import Metrics, RoundOutcome, most_said, round_line
from fedapp.server.procedure import Procedure
from fedapp.server.run_directory.checkpoint import Checkpoint
from fedapp.server.run_directory.checkpoint_writer import CheckpointWriter
from fedapp.server.run_directory.record import RunRecord
from fedapp.server.stopping import StopRules
from fedapp.wire.model import GlobalModel

__all__ = ["OnRound", "TrainingRun"]

OnRound = Callable[[dict[str, Any]], None]


class TrainingRun:
    """A checkpoint is written every `checkpoint_every` rounds and at the end. `about` goes into each: `config`, as
    JSON, `overrides`, and `data`. `start`: of this process's part of the run, by `time.perf_counter`. `on_round` is
    called with what was written of each round."""

    def __init__(
        self,
        procedure: Procedure,
        record: RunRecord,
        rules: StopRules,
        ending: Ending,
        *,
        checkpoint_every: int,
        about: Mapping[str, Any],
        start: float,
        on_round: OnRound = lambda metrics: None,
    ) -> None:
        self.procedure, self.record, self.rules, self.ending = procedure, record, rules, ending
        self._checkpoint_every, self._about, self._start = checkpoint_every, about, start
        self._on_round = on_round
        self._checkpoints = CheckpointWriter(record.directory / "checkpoint")
        self._name = secrets.token_hex(8)  # of this run, however often it is resumed
        self._best: Mapping[str, Tensor] | None = None  # the best model so far
        self._said = ""  # what most clients of the last round said that sent nothing
        self._test: Metrics = {}  # central evaluation of the model as it is now
        self._skipped_test = False  # which that was not made
        self._seconds_before = self._checkpoint_seconds = 0.0  # of running before this process; of the last checkpoint

    def run(self, resumed: Checkpoint | None = None) -> Result:
        """All rounds, or as many as the stop rules allow; from the beginning, or from a checkpoint."""
        try:
            return self._run(resumed)
        except BaseException:
            self.record.close()
            raise
        finally:
            self._checkpoints.finish()

    def _run(self, resumed: Checkpoint | None) -> Result:
        if resumed is None:
            self._begin()
        else:
            self._restore(resumed)
        failed = None
        self.rules.progress.budget_spent = self.procedure.exhausted
        try:
            while (reason := self.rules.reason()) is None:
                self._round(self.rules.progress.round + 1)
        except FederationError as error:
            reason = failed = f"{error}{self._said}"
        done = self.rules.progress.round
        if done % self._checkpoint_every:
            self.save()
        self._checkpoints.finish()  # before clients store a result that the server could lose
        if self.ending.best and self._best is not None and failed is None:
            self.procedure.model = GlobalModel(self._best)
            self._skipped_test = True
        if self._skipped_test:
            self._test = self.procedure.begin()
        final, delivered = self._end(done) if failed is None else ({}, 0)
        return Result(self.procedure.model.state, done, reason, failed, self._test, final, delivered, self._best)

    @property
    def seconds(self) -> float:
        """How long the run has been running, resumptions included."""
        return self._seconds_before + time.perf_counter() - self._start

    def _round(self, server_round: int) -> None:
        """One round, into the run directory, onto the terminal and into the stop rules."""
        clock = Clock(self._checkpoint_seconds)
        self._checkpoint_seconds = 0.0
        self._checkpoints.check()
        before = self.procedure.model.state
        outcome = self.procedure.round(server_round, self._name, clock)
        self._test, self._skipped_test = outcome.test, outcome.skipped_test
        times = {"time": time.time(), "seconds": clock.total(), **clock.phases()}
        times = {} if outcome.secret_cohort else times  # they would tell how many were in it
        metrics = outcome.metrics() | times | self.record.epsilon_metrics(outcome)
        self.record.add_round(metrics, outcome)
        log(INFO, "round %d/%d  %s", server_round, self.rules.num_rounds, round_line(metrics))
        for text in outcome.warnings.values():
            log(WARNING, "round %d: warning: %s", server_round, text)
        self._on_round({**metrics, "warnings": dict(outcome.warnings)})
        self._judge(outcome, before)
        self._said = most_said(outcome.replies)
        if server_round % self._checkpoint_every == 0:
            self.save()

    def _judge(self, outcome: RoundOutcome, before: Mapping[str, Tensor]) -> None:
        """Into the stop rules. `before`: the model that the round began with, which validation splits have judged."""
        of_before = f"test_{self.rules.patience_metric}" not in outcome.test
        is_best = self.rules.update(
            changed=outcome.changed,
            accuracy=outcome.judged("accuracy"),
            judged=outcome.judged(self.rules.patience_metric),
            seconds=self.seconds,
            budget_spent=self.procedure.exhausted,
            of_before=of_before,
        )
        if is_best:
            self._best = before if of_before else self.procedure.model.state

    def _end(self, done: int) -> tuple[Metrics, int]:
        """Federated evaluation of the final model, if it is wanted, and how many clients store it."""
        if not (self.ending.evaluate or self.ending.deliver):
            return {}, 0
        outcome = self.procedure.final(done, self._name, deliver=self.ending.deliver)
        self.record.add_final(outcome)
        final = {f"final_{name}": value for name, value in outcome.validation.items()} if self.ending.evaluate else {}
        return final, sum(report.delivered for report in outcome.replies.good)

    # --- the beginning, and going on ----------------------------------------------------------------------------

    def _begin(self) -> None:
        self._test = self.procedure.begin()
        metrics = {"round": 0, "time": time.time(), **self._test}
        self.record.add_round(metrics, None)
        self._on_round(metrics)
        self.save()
        self._checkpoints.finish()  # from now on there is always one to go on from

    def save(self) -> None:
        """The whole server state, as it is now, goes into the run directory: after a round, or within one."""
        start, done = time.perf_counter(), self.rules.progress.round
        values = {
            **self.record.state_dict(done),
            **self.procedure.state_dict(),
            "name": self._name,
            "rules": self.rules.state_dict(),
            "test": self._test,
            "skipped_test": self._skipped_test,
            "overrides": self._about["overrides"],
            "data": self._about["data"],
        }
        self._checkpoints.write(
            Checkpoint(
                server_round=done,
                model=self.procedure.model.state,
                optimizer=self.procedure.optimizer_state(),
                values=values,
                config=self._about["config"],
                tensors=self.procedure.tensors(),
                best=self._best if self._best is not None and self._best is not self.procedure.model.state else {},
            )
        )
        self._checkpoint_seconds = time.perf_counter() - start

    def _restore(self, saved: Checkpoint) -> None:
        self._name, self._test = saved.values["name"], saved.values["test"]
        self._skipped_test = saved.values.get("skipped_test", False)
        self.rules.load_state_dict(saved.values["rules"])
        self.procedure.load(saved)
        if self.rules.progress.best is not None:
            self._best = saved.best or self.procedure.model.state
        self._seconds_before = self.rules.progress.seconds
        log(INFO, "going on after round %d", saved.server_round)
