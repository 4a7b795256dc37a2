"""Rounds that do not wait for everybody they have asked: buffered ones, and any rounds in virtual time.

Clients are at work on the model of the round in which they were asked. A round is over, and the server steps, when it
has as many good updates as it needs; what comes later counts in a later round, or not at all (`policy.py`). No client
is asked again in a round in which it was asked, or in which its reply came: it trains at most once from each model, and
has at most one update in a sum.
"""

from collections.abc import Callable, Mapping, Sequence
from logging import INFO
from statistics import fmean
from typing import Any

from torch import Tensor

from fedapp.aggregation.plain.update_buffer import UpdateBuffer
from fedapp.common.logger import log
from fedapp.common.state_digest import State
from fedapp.server.asynchronous.arrivals import Arrivals, Ended
from fedapp.server.asynchronous.at_work import AtWork
from fedapp.server.asynchronous.job import Job
from fedapp.server.asynchronous.open_round import OpenRound
from fedapp.server.asynchronous.policy import Policy
from fedapp.server.asynchronous.recorded_order import check_replayed, row_asked, row_ended, row_over
from fedapp.server.asynchronous.screening import read_reply
from fedapp.server.asynchronous.stepped import stepped
from fedapp.server.clock import Clock
from fedapp.server.horizontal_rounds import HorizontalRounds, add_late
from fedapp.server.outcome import Metrics, RoundOutcome, validation_metrics
from fedapp.server.run_directory.checkpoint import Checkpoint
from fedapp.server.threads import one_thread
from fedapp.updates.server_side import figures_of
from fedapp.wire.reply import Reply

__all__ = ["AsynchronousRounds"]


class AsynchronousRounds(HorizontalRounds):
    """`shows_times`: the run directory may say when single clients replied."""

    def __init__(
        self,
        *arguments: Any,
        policy: Policy,
        buffer: UpdateBuffer,
        arrivals: Arrivals,
        shows_times: bool,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._policy, self._buffer, self._shows_times = policy, buffer, shows_times
        self._arrivals, self._at_work = arrivals, AtWork(self.strategy, arrivals)
        self._open: OpenRound | None = None
        self._events: list[Mapping[str, Any]] = []
        self._record: Callable[[Sequence[Mapping[str, Any]]], None] = lambda rows: None
        self._save: Callable[[], None] = lambda: None

    def attach(self, record: Callable[[Sequence[Mapping[str, Any]]], None], save: Callable[[], None]) -> None:
        self._record, self._save = record, save

    def round(self, server_round: int, run: str, clock: Clock) -> RoundOutcome:
        """Ask, take replies, ask again; with enough updates the next model, and its evaluation."""
        with one_thread(self.attendance.is_simulation):  # to its end: workers are at work meanwhile
            return self._round(server_round, run, clock)

    def _round(self, server_round: int, run: str, clock: Clock) -> RoundOutcome:
        late = self.attendance.update()
        self.strategy.roster.busy = ()  # who is at work is known by client
        self._at_work.begin_round(server_round, self.model)
        this = self._open = self._open or self._begun(server_round)
        add_late(this.log, late)
        for job in self._at_work.ask_again(run, this.log):
            self._take(this, Ended(job, None, self._arrivals.now, ("lost", "it has gone")))
        while not self._is_over(this):
            self._ask(this, run)
            if self._is_over(this, asked=True):
                break
            clock.lap("aggregate")
            ended = self._at_work.next()
            clock.lap("clients")
            self._take(this, ended)
        self._events.append(row_over(server_round))
        self._flush()
        outcome = self._outcome(this, clock)
        self._open = None
        self._at_work.end_round()
        return outcome

    def _begun(self, server_round: int) -> OpenRound:
        roster, rule = self.strategy.roster, self.strategy.cohorts
        made = OpenRound(server_round, 0, len(roster.left_out(server_round)))
        free = len(self._free(made))
        made.needed = max(1, self._policy.needed(rule, len(rule.whole(roster.reachable())), free))
        return made

    def _free(self, this: OpenRound) -> list[int]:
        """Whom the round may ask now."""
        taken = self._at_work.clients | this.asked | this.rows.keys()
        found = self.strategy.roster.available(this.server_round, self.strategy.min_clients)
        return self.strategy.cohorts.whole([client for client in found if client not in taken])

    def _is_over(self, this: OpenRound, *, asked: bool = False) -> bool:
        """`asked`: whoever could be has been."""
        recorded = self._arrivals.is_over(this.server_round)
        if recorded is not None:
            return recorded
        return len(this.updates) >= this.needed or (
            asked and self._policy.is_over(self._at_work.jobs.values(), this.server_round)
        )

    def _ask(self, this: OpenRound, run: str) -> None:
        clients = self._arrivals.prescribed(this.server_round)
        if clients is None:
            rule, free = self.strategy.cohorts, self._free(this)
            wanted = self._policy.missing(rule, this.needed, len(free), len(self._at_work.jobs), this.draws)
            size = max(0, min(wanted, len(free)))
            counted = self.strategy.roster.counted
            clients = rule.sample(free, size, this.server_round, counted, draw=this.draws) if size else []
            this.draws += bool(clients)
        for client in clients:
            this.asked.add(client)
            self._events.append(row_asked(self._at_work.ask(client, this.server_round, run, this.log)))

    # --- taking -------------------------------------------------------------------------------------------------

    def _take(self, this: OpenRound, ended: Ended) -> None:
        """What a job has come to: a good update, or why there is none."""
        job, before = ended.job, len(this.updates)
        staleness = this.ended(job, ended.at, shows_times=self._shows_times)
        for stray in self._arrivals.strays:
            this.log.strays.append(f"SuperNode {stray.metadata.src_node_id} answered twice")
        self._arrivals.strays.clear()
        add_late(this.log, self._arrivals.late)
        self._arrivals.late.clear()
        if ended.reply is None:
            this.log.reject(job.client, (ended.verdict or ("", ""))[1] or "no reply in time")
        else:
            read_reply(this, job, ended.reply, staleness, policy=self._policy, decoded=self._decoded)
        outcome, why = this.verdict(job.client, replied=ended.reply is not None)
        if ended.verdict is not None:
            check_replayed(job, ended.verdict[0], outcome, why)
            outcome, why = ended.verdict  # so that a replay can be replayed
        self._events.append(row_ended(job, this.server_round, outcome, why))
        every, good = self._policy.save_every, len(this.updates)
        if every is not None and before < good < this.needed and good % every == 0:
            self._flush()
            self._save()

    def _decoded(self, reply: Reply, job: Job) -> State:
        return self._buffer.decoded(reply, job.client, self.model, self._at_work.plan(job))

    # --- the step -----------------------------------------------------------------------------------------------

    def _outcome(self, this: OpenRound, clock: Clock) -> RoundOutcome:
        strategy, roster, replies = self.strategy, self.strategy.roster, this.log
        changed, weights = stepped(strategy, self._policy, self._buffer, this, self.model)
        excluded = self._noted(this.server_round, replies)
        test = self._judged(this.server_round, changed, clock)
        validation = validation_metrics(replies, None, self.task, roster.counted, roster.bound)
        return RoundOutcome(
            this.server_round,
            {client: weights.get(client, 0.0) for client in this.rows},
            replies,
            changed=changed is not None,
            test=test,
            skipped_test=not self.central.due(this.server_round),
            validation=validation,
            excluded=excluded,
            left_out=this.left_out,
            warnings=self.central.warnings(validation),
            figures={**figures_of(strategy.steps), **self._figures(this)},
            details=this.rows,
        )

    def _figures(self, this: OpenRound) -> Metrics:
        ages = [this.staleness[client] for client in this.updates]
        found: Metrics = {"staleness_mean": fmean(ages) if ages else None, "staleness_max": max(ages, default=None)}
        found |= {"at_work": len(self._at_work.jobs)}
        return found | self.facts()

    def _flush(self) -> None:
        """What is recorded is written, before a checkpoint counts on it."""
        self._record(self._events)
        self._events = []

    # --- around the rounds --------------------------------------------------------------------------------------

    def summary(self) -> None:
        log(INFO, "%s", self._policy.said())
        self.strategy.say_bounded()

    def facts(self) -> dict[str, Any]:
        return {"virtual_seconds": self._arrivals.now} if self._arrivals.is_virtual else {}

    def final(self, server_round: int, run: str, *, deliver: bool) -> RoundOutcome:
        """Nobody is waited for any more."""
        self._at_work.give_up()
        return super().final(server_round, run, deliver=deliver)

    def tensors(self) -> Mapping[str, Tensor]:
        """Models that clients are at work on, and the updates of a round that is not over."""
        updates = {} if self._open is None else self._open.updates
        kinds = {"model": self._at_work.tensors(), "update": {str(client): state for client, state in updates.items()}}
        return {
            f"{kind}/{number}/{key}": value
            for kind, states in kinds.items()
            for number, state in states.items()
            for key, value in state.items()
        }

    def state_dict(self) -> dict[str, Any]:
        this = None if self._open is None else self._open.state_dict()
        return {**super().state_dict(), "at_work": self._at_work.state_dict(), "open_round": this}

    def load(self, saved: Checkpoint) -> None:
        super().load(saved)
        states: dict[str, dict[str, dict[str, Tensor]]] = {"model": {}, "update": {}}
        for name, value in saved.tensors.items():
            kind, number, key = name.split("/", 2)
            states[kind].setdefault(number, {})[key] = value
        models = {number: self._in_order(state) for number, state in states["model"].items()}
        self._at_work.load(saved.values["at_work"], models)
        if (this := saved.values["open_round"]) is not None:
            updates = {client: self._in_order(state) for client, state in states["update"].items()}
            self._open = OpenRound.restored(this, updates)
