"""The clients that are at work: who was asked with which model, and what is needed to ask again after a resumption."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fedapp.aggregation.plain.client import STAGE
from fedapp.aggregation.protocol import Cohort, train_messages
from fedapp.aggregation.reply_log import ReplyLog
from fedapp.server.asynchronous.arrivals import Arrivals, Ended
from fedapp.server.asynchronous.job import Job
from fedapp.server.strategy import WeightedFedAvg
from fedapp.wire.instruction import Instruction, Params
from fedapp.wire.model import GlobalModel

__all__ = ["AtWork"]


class AtWork:
    """`jobs`: by number, those that are not over. Models and plans stay as long as somebody works with them."""

    def __init__(self, strategy: WeightedFedAvg, arrivals: Arrivals) -> None:
        self._strategy, self.arrivals = strategy, arrivals
        self.jobs: dict[int, Job] = {}
        self._count = 0  # of jobs so far
        self._models: dict[int, GlobalModel] = {}  # by round
        self._plans: dict[int, Mapping[str, Params]] = {}  # by round, the update steps' values
        self._resumed: tuple[Job, ...] = ()

    @property
    def clients(self) -> set[int]:
        """Those that are at work, or may still be on what is no longer waited for."""
        return {job.client for job in self.jobs.values()} | self.arrivals.owing

    def begin_round(self, server_round: int, model: GlobalModel) -> None:
        """Who is asked in this round begins with `model`."""
        self._models.setdefault(server_round, model)
        if server_round not in self._plans:
            self._plans[server_round] = self._strategy.steps.plan(server_round)

    def plan(self, job: Job) -> Mapping[str, Params]:
        return self._plans[job.server_round]

    def ask(self, client: int, server_round: int, run: str, log: ReplyLog) -> Job:
        job = Job(self._count, client, server_round, self.arrivals.now)
        job = self.arrivals.planned(job, self._strategy.roster.num_examples[client])
        self._count += 1
        self._begin(job, run, log)
        return job

    def ask_again(self, run: str, log: ReplyLog) -> list[Job]:
        """In a resumed run, have everybody who was at work do it again. Returns the jobs of those who have gone."""
        jobs, self._resumed = self._resumed, ()
        there = self._strategy.roster.nodes
        for job in jobs:
            if job.client in there:
                self._begin(job, run, log)
        return [job for job in jobs if job.client not in there]

    def next(self) -> Ended:
        ended = self.arrivals.next()
        del self.jobs[ended.job.number]
        return ended

    def end_round(self) -> None:
        """Models and plans that nobody works with any more can go."""
        rounds = {job.server_round for job in self.jobs.values()}
        self._models = {number: self._models[number] for number in rounds}
        self._plans = {number: self._plans[number] for number in rounds}

    def give_up(self) -> None:
        """Wait for nobody any more."""
        self.arrivals.give_up()
        self.jobs.clear()

    def _begin(self, job: Job, run: str, log: ReplyLog) -> None:
        strategy, roster = self._strategy, self._strategy.roster
        self.jobs[job.number] = job
        if not job.sent:
            self.arrivals.begin(job, None)
            return
        instruction = Instruction(
            job.server_round,
            (job.client,),
            (1.0,),  # its update counts by itself; what it weighs in the sum is known when the server steps
            lr_factor=strategy.client_lr(job.server_round),
            each=True,
            run=run,
            plan=self._plans[job.server_round],
        )
        host = roster.host(job.client, self.arrivals.at_work(roster.num_examples))
        cohort = Cohort(instruction, {job.client: host}, 1, 1, strategy.message_ttl, roster.helpers)
        (message,) = train_messages(cohort, self._models[job.server_round], STAGE, log)
        self.arrivals.begin(job, message)

    # --- going on from a checkpoint -----------------------------------------------------------------------------

    def tensors(self) -> dict[str, Mapping[str, Tensor]]:
        """By round, the models that clients are at work on."""
        return {str(number): model.state for number, model in self._models.items()}

    def state_dict(self) -> dict[str, Any]:
        plans = {str(number): {name: dict(own) for name, own in plan.items()} for number, plan in self._plans.items()}
        return {
            "jobs": [job.state_dict() for job in self.jobs.values()],
            "count": self._count,
            "plans": plans,
            **self.arrivals.state_dict(),
        }

    def load(self, saved: Mapping[str, Any], models: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._resumed = tuple(Job(**job) for job in saved["jobs"])
        self._count = saved["count"]
        self._plans = {int(number): plan for number, plan in saved["plans"].items()}
        self._models = {int(number): GlobalModel(state) for number, state in models.items()}
        self.arrivals.load(saved)
