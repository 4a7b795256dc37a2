"""Synchronous rounds under client-level DP, with a cohort that nobody is told."""

from typing import Any

from fedapp.aggregation.reply_log import ReplyLog
from fedapp.server.clock import Clock
from fedapp.server.outcome import RoundOutcome
from fedapp.server.rounds import SynchronousRounds
from fedapp.updates.server_side import figures_of, state_of

__all__ = ["SecretRounds"]


class SecretRounds(SynchronousRounds):
    """Nothing is told, not even in the log, of who was asked in a round, how many they were, or what became of them."""

    def round(self, server_round: int, run: str, clock: Clock) -> RoundOutcome:
        strategy = self.strategy
        self.attendance.update()
        changed, _ = strategy.train(strategy.choose(server_round, run), self.model, self._asking(clock))
        test = self._judged(server_round, changed, clock)
        figures = figures_of(strategy.steps) | (strategy.budget.figures() if strategy.budget is not None else {})
        return RoundOutcome(
            server_round,
            {},
            ReplyLog(server_round, {}),
            changed=changed is not None,
            test=test,
            skipped_test=not self.central.due(server_round),
            warnings=self.central.warnings({}),
            figures=figures,
            secret_cohort=True,
        )

    @property
    def exhausted(self) -> str | None:
        return self.strategy.budget.exhausted() if self.strategy.budget is not None else None

    def final(self, server_round: int, run: str, *, deliver: bool) -> RoundOutcome:
        """All clients are asked, those whom no round has drawn as well."""
        self.attendance.update()
        self.strategy.evaluate(server_round, run, self.model, self._exchanged, deliver=deliver)
        return RoundOutcome(server_round, {}, ReplyLog(server_round, {}), secret_cohort=True)

    def state_dict(self) -> dict[str, Any]:
        """Not who failed either."""
        head = self.strategy.budget.head if self.strategy.budget is not None else ""
        return {
            "ledger": head,
            "steps": state_of(self.strategy.steps),
            "roster": {"failures": {}, "excluded": {}, "declined": []},
        }
