"""The stages of a round of secure aggregation, on the server: messages out, and replies in."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from logging import INFO

from flwr.app import ConfigRecord, RecordDict

from fedapp.aggregation.reply_log import SURPLUS
from fedapp.aggregation.secaggplus.answers import unpack_keys, unpack_revealed, unpack_shared, unpack_signed
from fedapp.aggregation.secaggplus.asking import Asking, Take
from fedapp.aggregation.secaggplus.blame import Accusations
from fedapp.aggregation.secaggplus.collector import Collector, Unmasked
from fedapp.aggregation.secaggplus.masked_message import pack_masked, unpack_masked_reply
from fedapp.aggregation.secaggplus.messages import Header, pack_question, pack_signatures, unpack_accused
from fedapp.aggregation.secaggplus.view_record import pack_view
from fedapp.aggregation.whole_numbers.quantise import unpack
from fedapp.common.logger import log
from fedapp.wire.model import GlobalModel
from fedapp.wire.reply import ClientReport

__all__ = ["Stages", "Timeouts"]


@dataclass(frozen=True)
class Timeouts:
    """Seconds to wait for the replies of each stage; the masked vectors are the one in which clients train."""

    keys: float
    shares: float
    masked: float
    consistency: float
    unmask: float


@dataclass(frozen=True)
class Stages:
    """The messages of one round. A client that does not reply to a stage, or badly, is rejected and not asked again."""

    collector: Collector
    model: GlobalModel
    asking: Asking
    timeouts: Timeouts
    accusations: Accusations = field(default_factory=Accusations)

    def __call__(self) -> Unmasked:
        """All of them. Raises ProtocolError where nothing can be unmasked."""
        self.keys()
        self.shares()
        self.masked()
        self.consistency()
        return self.unmask()

    def keys(self) -> None:
        asked = set(self.asking.cohort.hosts)

        def add(client: int, record: ConfigRecord) -> None:
            self.collector.add_keys(client, *unpack_keys(record))

        def enough() -> bool:
            return len(asked) > self.asking.cohort.needed <= len(self.collector.complete)

        self.asking.stage("keys", asked, pack_question, self.asking.each(add), self.timeouts.keys, enough)
        if enough():  # more were asked than are needed
            surplus = asked - self.collector.heard - self.asking.replies.reports.keys()
            self.asking.replies.unused.update(dict.fromkeys(surplus, SURPLUS))
        self.collector.close_keys()
        self._leave_out()

    def shares(self) -> None:
        view = self.collector.view

        def question(header: Header) -> RecordDict:
            content = pack_question(header)
            content["view"] = pack_view(view)
            return content

        def add(client: int, record: ConfigRecord) -> None:
            self.collector.add_shares(client, unpack_shared(record))

        def named(client: int, accused: Collection[int]) -> None:
            self.accusations.add(view, client, accused)

        self._stage("shares", view.by_client, question, self.asking.each(add, named), self.timeouts.shares)
        self.accusations.settle(view, self.asking.replies)
        present = self.collector.close_shares()
        self._leave_out()
        for client in view.by_client:
            known = self.asking.replies.reports.keys() | self.asking.replies.unused.keys()
            if client not in present and client not in known:
                self.asking.replies.reject(client, "too few of those who hold its shares are left")

    def masked(self) -> None:
        collector = self.collector
        weights = collector.view.by_client

        def question(header: Header) -> RecordDict:
            own = tuple(weights[client].weight for client in header.clients)
            instruction = replace(self.asking.cohort.instruction, clients=header.clients, weights=own)
            sealed = {client: collector.sealed_for(client) for client in header.clients}
            return pack_masked(header, instruction, self.model, collector.present, sealed)

        self._stage("masked", collector.present, question, self._take_masked, self.timeouts.masked)
        self.accusations.settle(collector.view, self.asking.replies)
        collector.close_masked()
        self._leave_out()

    def _take_masked(self, header: Header, content: RecordDict) -> None:
        reply, packed = unpack_masked_reply(content, self.collector.settings.batch)
        if tuple(sorted(report.client for report in reply.reports)) != header.clients:
            raise ValueError("it is not about the clients that were asked")
        setting, length = self.collector.settings, self.collector.length
        vectors = [(clients, unpack(vector.numpy(), setting, length)) for clients, vector in packed]
        for clients, vector in vectors:
            self.collector.add_masked(clients, vector)
        good = {client for clients, _ in packed for client in clients}
        # What a single client says of its training is not asked for, and not kept.
        told = (ClientReport(r.client, r.rejected, r.declined, privacy=r.privacy) for r in reply.reports)
        self.asking.replies.add(told)
        for client, accused in unpack_accused(content, header.clients).items():
            if client not in good:
                self.accusations.add(self.collector.view, client, accused)

    def consistency(self) -> None:
        """Among devices: everyone's signature of who is in the sum. Nothing is revealed where too few sign."""
        collector = self.collector
        if not collector.signers:
            return

        def take(header: Header, content: RecordDict) -> None:
            self.asking.take_each(
                header, content, lambda client, record: collector.add_signature(client, unpack_signed(record))
            )

        self._stage("consistency", collector.signers, self._lists, take, self.timeouts.consistency, blame=False)

    def _leave_out(self) -> None:
        """Who did nothing wrong, and is in no sum, since its batch is not complete."""
        for client in self.collector.left_out:
            self.asking.replies.unused.setdefault(client, "its batch is not complete (secure_aggregation.batches)")

    def _lists(self, header: Header) -> RecordDict:
        collector = self.collector
        return pack_question(header, survivors=list(collector.survivors), dropped=list(collector.dropped))

    def unmask(self) -> Unmasked:
        collector = self.collector
        without = set(collector.signers) - collector.signatures.keys()  # they would reveal nothing
        asked = set(collector.survivors) - without
        silent = set(collector.survivors)
        collector.revealing = collector.survivors if collector.signers else ()

        def question(header: Header) -> RecordDict:
            content = self._lists(header)
            if collector.signatures:
                content["signatures"] = pack_signatures(collector.signatures)
            return content

        def add(client: int, record: ConfigRecord) -> None:
            collector.add_revealed(client, unpack_revealed(record))
            silent.discard(client)

        def take(header: Header, content: RecordDict) -> None:
            self.asking.take_each(header, content, add)

        self._stage("unmask", asked, question, take, self.timeouts.unmask, blame=False)
        if silent:
            log(
                INFO,
                "round %d: clients %s are in the sum, and gone",
                self.asking.replies.server_round,
                sorted(silent)[:20],
            )
        return collector.unmask()

    def _stage(
        self,
        stage: str,
        clients: Iterable[int],
        question: Callable[[Header], RecordDict],
        take: Take,
        timeout: float,
        *,
        blame: bool = True,
    ) -> None:
        self.asking.stage(stage, clients, question, take, timeout, digest=self.collector.view.digest, blame=blame)
