"""Training over parties with different columns (the Procedure of a vertical run): this is where a batch happens."""

import hashlib
import math
from collections.abc import Callable, Mapping
from logging import INFO, WARNING
from typing import Any

from torch import Tensor

from fedapp.aggregation.reply_log import ReplyLog
from fedapp.common.errors import FederationError
from fedapp.common.logger import log
from fedapp.learning.task import Task
from fedapp.server.clock import Clock
from fedapp.server.exchange import Exchange
from fedapp.server.outcome import Metrics, RoundOutcome
from fedapp.server.run_directory.checkpoint import Checkpoint
from fedapp.server.vertical.join import Joined, JoinRules, join
from fedapp.server.vertical.relay import PartyFailedError
from fedapp.vertical.orders import PartyAnswer
from fedapp.wire.model import GlobalModel
from fedapp.wire.reply import ClientReport

__all__ = ["VerticalTraining"]


class VerticalTraining:
    """A round is `local_epochs` passes over the matched entities. The server has no model: each party keeps its part,
    and the server knows the digest of each. `run`: the run's name, under which parts are kept."""

    exhausted = None

    def __init__(
        self,
        exchange: Exchange,
        rules: JoinRules,
        joined: Joined,
        task: Task,
        *,
        local_epochs: int,
        lr_factor: Callable[[int], float],
        name: str,
        most_failed: int,
    ) -> None:
        self.exchange, self.rules, self.joined, self.task = exchange, rules, joined, task
        self.local_epochs, self.lr_factor, self.name = local_epochs, lr_factor, name
        self.most_failed = most_failed
        self.model = GlobalModel({})
        self.epoch = 0  # the last one after which all parties have kept their parts
        self.digests: dict[str, str] = {}
        self.traffic: dict[str, list[int]] = {name: [0, 0] for name in rules.options.names}
        self._train_loss: float | None = None

    @property
    def hosts(self) -> Mapping[int, int]:
        """By client, its SuperNode."""
        relay = self.joined.relay
        return {party.client: relay.hosts[party.name] for party in relay.view.parties}

    def begin(self) -> Metrics:
        """Metrics of the initial model on the held-out entities. All parties keep their initial parts."""
        return self._judge(0, 1.0)

    def round(self, server_round: int, run: str, clock: Clock) -> RoundOutcome:
        """All batches, then the evaluation. Where a party fails, all go back to the last epoch that all have kept, and
        the round is done once more. Raises FederationError where that has failed `most_failed` times: the run ends with
        the parts of that epoch at every party, and can be resumed."""
        for attempt in range(1, self.most_failed + 1):
            try:
                if attempt > 1:
                    self._come_back()
                clock.lap("other")
                test = self._epochs(self.lr_factor(server_round))
                break
            except FederationError as error:
                log(WARNING, "round %d: %s", server_round, error)
                if attempt == self.most_failed:
                    raise
            finally:
                clock.lap("clients")
        replies = ReplyLog(server_round, self.hosts)
        replies.add(self._reports())
        self._count(replies)
        weights = {client: 1 / len(self.hosts) for client in self.hosts}
        return RoundOutcome(server_round, weights, replies, changed=True, test=test)

    def _epochs(self, lr_factor: float) -> Metrics:
        """The passes of one round: the epoch counts once all of it is kept."""
        first = self.epoch + 1
        for epoch in range(first, first + self.local_epochs):
            for batch in range(1, self.num_batches + 1):
                self._batch(epoch, batch, lr_factor)
        return self._judge(first + self.local_epochs - 1, lr_factor)

    @property
    def num_batches(self) -> int:
        full, left = divmod(self.joined.train, self.rules.batch)
        return max(1, full + (left > 1))

    def _batch(self, epoch: int, batch: int, lr_factor: float) -> None:
        """Embeddings from all parties, then gradients from the label party; these go out with the next batch."""

        def exchange() -> None:
            self._legs("train", epoch=epoch, batch=batch, lr_factor=lr_factor)

        try:
            exchange()
        except PartyFailedError as error:  # once more, with new masks
            log(WARNING, "batch %d of epoch %d is repeated: %s", batch, epoch, error)
            self.joined.relay.drop(self.label_party)
            exchange()

    def _legs(self, stage: str, **values: Any) -> dict[str, PartyAnswer]:
        """The parties without labels first, then the one with them."""
        relay = self.joined.relay
        answers = relay.ask(stage, relay.view.others, **values)
        return answers | relay.ask(stage, [self.label_party], **values)

    @property
    def label_party(self) -> str:
        return self.joined.relay.view.label_party

    def _judge(self, epoch: int, lr_factor: float) -> Metrics:
        """Metrics after an epoch, which every party keeps its part of."""
        answers = self._legs("judge", epoch=epoch, lr_factor=lr_factor, run=self.name)
        self._take_digests(answers)
        self.epoch = epoch
        figures = answers[self.label_party].figures
        train_loss = figures.get("train_loss", math.nan)
        self._train_loss = train_loss if math.isfinite(train_loss) else None
        names = ("test_loss", *(f"test_{name}" for name in self.task.metrics))
        return {name: self._possible(name, figures.get(name, math.nan)) for name in names}

    def _possible(self, name: str, value: float) -> float | None:
        """A figure of the label party's; None for one that is not defined, or that nothing could give."""
        metric = self.task.metrics.get(name.removeprefix("test_"))
        good = math.isfinite(value) and (metric is None or metric.possible(value))
        return value if good else None

    def _reports(self) -> list[ClientReport]:
        view, rounds = self.joined.relay.view, self.local_epochs * self.num_batches
        return [
            ClientReport(
                party.client,
                num_examples=party.rows,
                steps=rounds,
                train_loss=self._train_loss if party.labels else None,
            )
            for party in view.parties
        ]

    def _count(self, replies: ReplyLog) -> None:
        taken = self.joined.relay.traffic.take()
        replies.bytes_down += sum(taken.down.values())
        replies.bytes_up += sum(taken.up.values())
        for name, found in self.traffic.items():
            found[0] += taken.down.get(name, 0)
            found[1] += taken.up.get(name, 0)

    def final(self, server_round: int, run: str, *, deliver: bool) -> RoundOutcome:
        """Every party keeps its part of the finished model."""
        replies = ReplyLog(server_round, self.hosts)
        answers = self.joined.relay.ask("keep", self.rules.options.names, run=self.name)
        self._take_digests(answers)
        for party in self.joined.relay.view.parties:
            kept = bool(answers[party.name].figures.get("kept"))
            replies.add([ClientReport(party.client, delivered=kept)])
        self._count(replies)
        return RoundOutcome(server_round, {}, replies)

    # --- going on -----------------------------------------------------------------------------------------------

    def _come_back(self) -> None:
        """Wait for all parties, begin a new session, and go back to the last epoch that all of them have kept."""
        log(INFO, "waiting for all parties, to go on after epoch %d", self.epoch)
        traffic = self.joined.relay.traffic
        self.joined = join(self.exchange, self.rules)
        for name, count in traffic.down.items():
            self.joined.relay.traffic.down[name] += count
        for name, count in traffic.up.items():
            self.joined.relay.traffic.up[name] += count
        self._restore()

    def _restore(self) -> None:
        """Raises FederationError where a party has another part than it had."""
        before = dict(self.digests)
        answers = self.joined.relay.ask("restore", self.rules.options.names, epoch=self.epoch, run=self.name)
        self._take_digests(answers)
        if changed := sorted(name for name, digest in before.items() if self.digests[name] != digest):
            self.digests = before
            raise FederationError(f"parties {', '.join(changed)}: their parts are not those after epoch {self.epoch}")

    def _take_digests(self, answers: Mapping[str, PartyAnswer]) -> None:
        self.digests |= {name: answer.facts.get("sha256", "") for name, answer in answers.items()}

    @property
    def model_sha256(self) -> str:
        """The digest of the parts' digests."""
        lines = "".join(f"{name} {digest}\n" for name, digest in sorted(self.digests.items()))
        return hashlib.sha256(lines.encode()).hexdigest()

    def optimizer_state(self) -> dict[str, Any]:
        return {}

    def tensors(self) -> Mapping[str, Tensor]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "parts": dict(self.digests), "traffic": self.traffic, "parts_of": self.name}

    def load(self, saved: Checkpoint) -> None:
        values = saved.values
        self.epoch, self.digests, self.name = int(values["epoch"]), dict(values["parts"]), str(values["parts_of"])
        self.traffic |= {name: list(map(int, found)) for name, found in values["traffic"].items()}
        self._restore()
