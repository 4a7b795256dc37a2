"""The server half of sums through a helper: masked vectors are added as they come, and a helper lays the sum bare.

A dropout costs its own update and nothing else. A client whose tag the helper refuses is rejected by name, and its
vector taken out of the sum again; a helper that does not answer costs the round, which then changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from logging import INFO, WARNING
from typing import Any

from numpy.typing import NDArray

from fedapp.aggregation.helper.ask_helpers import AskHelpers
from fedapp.aggregation.helper.carrier import Bytes, Carrier, Ints
from fedapp.aggregation.helper.gathered import Gathered
from fedapp.aggregation.helper.helper_messages import MASKED, OFFER, RefusedError, SumRequest, pack_offer
from fedapp.aggregation.helper.run_keys import NO_HELPER
from fedapp.aggregation.helper.sealed_model import about_of, is_sealed
from fedapp.aggregation.helper.tags import Bound, Tag
from fedapp.aggregation.protocol import Aggregate, Ask, Cohort, train_messages
from fedapp.aggregation.reply_log import ReplyLog
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.aggregation.whole_numbers.sum_reading import SumReading
from fedapp.aggregation.whole_numbers.work_digest import work_digest
from fedapp.common.logger import log
from fedapp.common.state_digest import State, trained_sha256
from fedapp.updates.steps import UpdateSteps
from fedapp.wire.instruction import Params
from fedapp.wire.model import GlobalModel

__all__ = ["HelperServer"]


@dataclass(frozen=True)
class Gotten:
    """A sum under masks: of which `clients`, of which `weight`, by helper its SuperNode and the tags for it, and
    the `plan` of its round."""

    clients: tuple[int, ...]
    weight: float
    helpers: list[tuple[int, Bound, tuple[Tag, ...]]]
    carried: Bytes
    length: int
    plan: Mapping[str, Params]


@dataclass
class HelperServer:
    """`reading`: of a sum. `config_sha256`: of the resolved config. `wanted`: how many helpers there must be.
    `timeout`: seconds to wait for one. `to_clients`: the helper makes the next model, which the server cannot read.
    `steps`: of the run."""

    carrier: Carrier
    reading: SumReading
    config_sha256: str
    wanted: int = 1
    timeout: float = 60.0
    to_clients: bool = False
    steps: UpdateSteps = field(default_factory=UpdateSteps)
    _helpers: AskHelpers = field(init=False)
    _pending: Gotten | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._helpers = AskHelpers(self.wanted, self.timeout, self.carrier.most_public_bytes)

    def describe(self, cohort_size: int) -> None:
        whose = "the clients, and the server has no model" if self.to_clients else "the server"
        log(INFO, "Secure aggregation through %d helper(s): the sum goes to %s", self.wanted, whose)

    def run(self, cohort: Cohort, model: GlobalModel, ask: Ask) -> Aggregate:
        """One round. Its total is the weighted mean over the survivors, of weight 1."""
        replies = ReplyLog(cohort.instruction.server_round, cohort.hosts)
        try:
            found = self._round(_with_shares(cohort), model, ask, replies)
        except ProtocolError as error:
            log(WARNING, "round %d changes nothing: %s", replies.server_round, error)
            why = f"nothing was laid bare: {error}"
            self._helpers.ask_all_again()
            replies.leave_out(why)
            if error.kind == NO_HELPER:  # they did nothing wrong, and most were not even asked
                known = replies.reports.keys() | replies.unused.keys()
                replies.unused.update(dict.fromkeys(cohort.hosts.keys() - known, why))
            found = Aggregate(None, 0.0, (), replies, warnings={"nothing was summed": str(error)})
        replies.close(enough=cohort.has_enough(replies))
        return found

    def _round(self, cohort: Cohort, model: GlobalModel, ask: Ask, replies: ReplyLog) -> Aggregate:
        about = about_of(model.state) if is_sealed(model.state) else None
        run, version = cohort.instruction.run, about.version if about is not None else 0
        offered, newer = self._helpers.keys(cohort, run, version if self.to_clients else -1, ask, replies)
        if newer is not None:
            log(WARNING, "round %d: the helper has a newer model of this run, which is taken", replies.server_round)
            why = "the helper had summed this round, and its answer was lost"
            replies.unused.update(dict.fromkeys(cohort.hosts, why))
            return Aggregate(None, 0.0, (), replies, warnings={"round taken over": why}, next_model=newer)
        template = self.steps.template(model.template)
        size = about.length if about is not None else sum(value.numel() for value in template.values())
        length, count = size + self.reading.entries, len(cohort.hosts)
        bound = Bound(
            *(run, replies.server_round, count, about.trained if about is not None else trained_sha256(model.state)),
            *(self.config_sha256, work_digest(cohort.instruction, self.config_sha256), b""),
        )
        if (found := self._again(cohort, model, ask, replies, bound.model)) is not None:
            return found
        with Gathered(
            self.carrier.at(count), [replace(bound, key=keys.key) for _, keys in offered], offered, length
        ) as gathered:
            weights = {client: share * count for client, share in cohort.weights.items()}
            messages = train_messages(cohort, model, MASKED, replies)
            for message in messages:
                message.content[OFFER] = pack_offer([keys for _, keys in offered], count)
            for message in ask(messages, None):
                gathered.take(message, weights, replies)
                if cohort.has_enough(replies):
                    break
            replies.close(enough=cohort.has_enough(replies))
            gathered.settle(replies)
            return self._laid_bare(gathered, cohort, model, ask, replies)

    def _laid_bare(
        self, gathered: Gathered, cohort: Cohort, model: GlobalModel, ask: Ask, replies: ReplyLog
    ) -> Aggregate:
        """Ask the helpers, again without those whose tags they refuse."""
        lost = ""
        while True:
            clients = gathered.clients
            if len(clients) < max(2, cohort.minimum):
                raise ProtocolError("too few", f"{len(clients)} good replies{lost}")
            found = Gotten(
                clients, gathered.weight, gathered.helpers(), gathered.total(), gathered.length, cohort.instruction.plan
            )
            try:
                return self._sum(found, cohort, model, ask, replies)
            except RefusedError as error:
                if not set(error.faults) & set(clients):
                    raise
                if error.is_repetition:  # a sum that changed nothing is no fault of theirs
                    lost = f"; {error}"
                gathered.reject(error.faults, replies, blame=not error.is_repetition)
            except ProtocolError as error:
                if error.kind == NO_HELPER:  # it may have removed the masks, and its answer been lost
                    self._pending = found
                raise

    def _again(
        self, cohort: Cohort, model: GlobalModel, ask: Ask, replies: ReplyLog, model_sha256: str
    ) -> Aggregate | None:
        """What comes of a sum that a helper did not answer in an earlier round; None where there is none, or it is
        refused. The clients are asked for nothing."""
        pending, self._pending = self._pending, None
        if pending is None or pending.helpers[0][1].model != model_sha256:
            return None
        try:
            found = self._sum(pending, cohort, model, ask, replies)
        except ProtocolError as error:
            if error.kind == NO_HELPER:
                self._pending = pending
                raise
            log(WARNING, "round %d: the sum of an earlier round is lost: %s", replies.server_round, error)
            return None
        why = (
            f"the sum of round {pending.helpers[0][1].server_round} was waiting for the helper, and counts in this one"
        )
        log(INFO, "round %d: %s", replies.server_round, why)
        replies.unused.update(dict.fromkeys(cohort.hosts, why))
        return replace(found, plan=pending.plan, warnings={**found.warnings, "sum of an earlier round": why})

    def _sum(self, gotten: Gotten, cohort: Cohort, model: GlobalModel, ask: Ask, replies: ReplyLog) -> Aggregate:
        carried, length = gotten.carried, gotten.length
        carrier = self.carrier.at(gotten.helpers[0][1].cohort)
        # All but the first give the sum of their masks, as does the first where the sum is the server's.
        for number, (node, bound, tags) in reversed(list(enumerate(gotten.helpers))):
            keeps = self.to_clients and number == 0
            shown = keeps or not carrier.gives_masks
            request = SumRequest(bound, tags, length, carried if shown else None, model.state if keeps else None)
            result, digest = self._helpers.sum(node, request, cohort, ask, replies)
            if keeps:
                return self._next(result, digest, gotten, replies)
            if "masks" in result:
                carried = carrier.without(carried, _array(result, "masks", "uint8", len(carried)), length)
        total: Ints = _array(result, "total", "int64", length) if "total" in result else carrier.read(carried, length)
        self._check_range(total, gotten.helpers[0][1].cohort)
        template = self.steps.template(model.template)
        return self.reading.aggregate(total, gotten.weight, gotten.clients, template, replies)

    def _check_range(self, total: Ints, cohort: int) -> None:
        """Raises ProtocolError for a sum that no cohort of this size has: a client has sent junk, or a helper."""
        largest = self.reading.numbers.largest_sum(cohort)
        if total.size and max(-int(total.min()), int(total.max())) > largest:
            raise ProtocolError("forged", f"the sum is none of a cohort of {cohort}: a value beyond {largest}")

    def _next(self, result: State, digest: str, gotten: Gotten, replies: ReplyLog) -> Aggregate:
        metrics: Ints = _array(result, "metrics", "int64", self.reading.entries)
        sealed = {name: value for name, value in result.items() if name != "metrics"}
        if not is_sealed(sealed) or about_of(sealed).model != digest:
            raise ProtocolError("truncated", "the helper's reply holds no sealed model")
        found = self.reading.metric_means(metrics, gotten.weight, len(gotten.clients))
        return Aggregate(
            None,
            0.0,
            gotten.clients,
            replies,
            scalars=found.means,
            warnings=self.reading.warnings(found),
            next_model=sealed,
        )


def _with_shares(cohort: Cohort) -> Cohort:
    """Weights that sum to one over those asked, as they are in SecAgg+."""
    if not (shares := cohort.shares):
        raise ProtocolError("wrong cohort", "none of those asked has a weight")
    return cohort.weighted_by(shares)


def _array(result: State, name: str, dtype: str, length: int) -> NDArray[Any]:
    """Raises ProtocolError."""
    found = result[name].numpy() if name in result else None
    if found is None or found.dtype != dtype or found.shape != (length,):
        raise ProtocolError("truncated", f"the helper's reply holds no {name} of {length} values")
    return found
