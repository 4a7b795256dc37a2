"""The four stages of a round of secure aggregation, on the server: messages out, and replies in."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from logging import INFO, WARNING

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.common.logger import log

from fedapp.aggregation.protocol import Ask, Cohort, by_supernode
from fedapp.aggregation.reply_log import SURPLUS, ReplyLog
from fedapp.aggregation.secaggplus.collector import Collector, Unmasked
from fedapp.aggregation.secaggplus.messages import (
    Header,
    pack_masked,
    pack_question,
    pack_view,
    unpack_answers,
    unpack_header,
    unpack_masked_reply,
    unpack_revealed,
    unpack_shared,
)
from fedapp.aggregation.secaggplus.protocol_error import ProtocolError
from fedapp.aggregation.secaggplus.quantise import unpack
from fedapp.wire.instruction import with_stage
from fedapp.wire.model import GlobalModel
from fedapp.wire.records import text
from fedapp.wire.reply import ClientReport

__all__ = ["Stages", "Timeouts"]

Take = Callable[[Header, RecordDict], None]


@dataclass(frozen=True)
class Timeouts:
    """Seconds to wait for the replies of each stage; the masked vectors are the one in which clients train."""

    keys: float
    shares: float
    masked: float
    unmask: float


@dataclass(frozen=True)
class Stages:
    """The messages of one round. A client that does not reply to a stage, or badly, is rejected and not asked again."""

    collector: Collector
    cohort: Cohort
    model: GlobalModel
    ask: Ask
    replies: ReplyLog
    timeouts: Timeouts

    def __call__(self) -> Unmasked:
        """All of them. Raises ProtocolError where nothing can be unmasked."""
        self.keys()
        self.shares()
        self.masked()
        return self.unmask()

    def keys(self) -> None:
        asked = set(self.cohort.hosts)

        def add(client: int, record: ConfigRecord) -> None:
            self.collector.add_keys(client, *_keys(record))

        def enough() -> bool:
            return len(asked) > self.cohort.needed <= len(self.collector.heard)

        self._stage("keys", asked, pack_question, self._each(add), self.timeouts.keys, enough)
        if enough():  # more were asked than are needed
            surplus = asked - self.collector.heard - self.replies.reports.keys()
            self.replies.unused.update(dict.fromkeys(surplus, SURPLUS))
        self.collector.close_keys()

    def shares(self) -> None:
        view = self.collector.view

        def question(header: Header) -> RecordDict:
            content = pack_question(header)
            content["view"] = pack_view(view)
            return content

        def add(client: int, record: ConfigRecord) -> None:
            self.collector.add_shares(client, unpack_shared(record))

        self._stage("shares", view.by_client, question, self._each(add), self.timeouts.shares)
        present = self.collector.close_shares()
        for client in view.by_client:
            if client not in present and client not in self.replies.reports:
                self.replies.reject(client, "too few of those who hold its shares are left")

    def masked(self) -> None:
        collector = self.collector
        weights = collector.view.by_client

        def question(header: Header) -> RecordDict:
            own = tuple(weights[client].weight for client in header.clients)
            instruction = replace(self.cohort.instruction, clients=header.clients, weights=own)
            sealed = {client: collector.sealed_for(client) for client in header.clients}
            return pack_masked(header, instruction, self.model, collector.present, sealed)

        self._stage("masked", collector.present, question, self._take_masked, self.timeouts.masked)
        collector.close_masked()

    def _take_masked(self, header: Header, content: RecordDict) -> None:
        reply, packed = unpack_masked_reply(content)
        if tuple(sorted(report.client for report in reply.reports)) != header.clients:
            raise ValueError("it is not about the clients that were asked")
        good = [report.client for report in reply.reports if report.rejected is None and not report.declined]
        if good:
            if packed is None:
                raise ValueError("it has no masked vector")
            vector = unpack(packed.numpy(), self.collector.settings, self.collector.length)
            self.collector.add_masked(good, vector)
        # What a single client says of its training is not asked for, and not kept.
        self.replies.add(ClientReport(r.client, r.rejected, r.declined, privacy=r.privacy) for r in reply.reports)

    def unmask(self) -> Unmasked:
        collector, silent = self.collector, set(self.collector.survivors)

        def question(header: Header) -> RecordDict:
            return pack_question(header, survivors=list(collector.survivors), dropped=list(collector.dropped))

        def take(header: Header, content: RecordDict) -> None:
            answers, refused = unpack_answers(content, header.clients)
            for client, why in refused.items():
                log(WARNING, "round %d: client %d reveals nothing: %s", header.server_round, client, why)
            for client, record in answers.items():
                try:
                    collector.add_revealed(client, unpack_revealed(record))
                    silent.discard(client)
                except (ProtocolError, ValueError, KeyError, TypeError) as error:
                    log(WARNING, "round %d: client %d: %s", header.server_round, client, text(error))

        self._stage("unmask", collector.survivors, question, take, self.timeouts.unmask, blame=False)
        if silent:
            log(INFO, "round %d: clients %s are in the sum, and gone", self.replies.server_round, sorted(silent)[:20])
        return collector.unmask()

    # --- messages -----------------------------------------------------------------------------------------------

    def _stage(
        self,
        stage: str,
        clients: Iterable[int],
        question: Callable[[Header], RecordDict],
        take: Take,
        timeout: float,
        enough: Callable[[], bool] = lambda: False,
        *,
        blame: bool = True,
    ) -> None:
        """Ask every SuperNode about its clients, and `take` the answers as they come. With `blame`, clients without a
        good one are rejected: their update is not in the sum."""
        by_node = by_supernode(clients, self.cohort.hosts)
        digest = self.collector.view.digest if stage != "keys" else b""
        headers = {
            node: Header(stage, self.collector.run, self.replies.server_round, tuple(found), digest)
            for node, found in by_node.items()
        }
        log(INFO, "round %d: %s of %d clients", self.replies.server_round, stage, sum(map(len, by_node.values())))
        answered: set[int] = set()
        messages = [self._message(node, header, question(header)) for node, header in headers.items()]
        for reply in self.ask(messages, timeout):
            self._take(reply, headers, answered, take, blame)
            if enough():
                return
        for node in headers.keys() - answered:
            self._reject(headers[node], f"no reply in time ({stage})", blame)

    def _message(self, node: int, header: Header, content: RecordDict) -> Message:
        self.replies.sent(with_stage(content, header.stage))
        group = str(header.server_round)
        return Message(content, node, MessageType.TRAIN, ttl=self.cohort.message_ttl, group_id=group)

    def _take(self, reply: Message, headers: Mapping[int, Header], answered: set[int], take: Take, blame: bool) -> None:
        """One reply; whatever is wrong with it costs no more than its sender's part."""
        node = reply.metadata.src_node_id
        if node not in headers or node in answered:
            self.replies.strays.append(f"SuperNode {node} {'answered twice' if node in answered else 'was not asked'}")
            return
        answered.add(node)
        header = headers[node]
        try:
            if reply.has_error():
                raise ValueError(f"error {reply.error.code}: {reply.error.reason}")
            self.replies.received(reply.content)
            unpack_header(reply.content).expect(header)
            take(header, reply.content)
        except Exception as error:  # whatever it is, it is the sender's
            self._reject(header, f"bad reply ({header.stage}): {text(error) or type(error).__name__}", blame)

    def _each(self, add: Callable[[int, ConfigRecord], None]) -> Take:
        """Take each client's answer by `add`, or reject that client."""

        def take(header: Header, content: RecordDict) -> None:
            answers, refused = unpack_answers(content, header.clients)
            for client, why in refused.items():
                self.replies.reject(client, f"{header.stage}: {why}")
            for client, record in answers.items():
                try:
                    add(client, record)
                except (ProtocolError, ValueError, KeyError, TypeError) as error:
                    self.replies.reject(client, f"{header.stage}: bad reply: {text(error) or type(error).__name__}")

        return take

    def _reject(self, header: Header, why: str, blame: bool) -> None:
        for client in header.clients:
            if not blame:
                log(WARNING, "round %d: client %d reveals nothing: %s", header.server_round, client, why)
            else:
                self.replies.reject(client, why)


def _keys(record: ConfigRecord) -> tuple[bytes, bytes, bytes]:
    found = tuple(record[name] for name in ("cipher-key", "mask-key", "signature"))
    if not all(isinstance(item, bytes) for item in found):
        raise TypeError("keys are bytes")
    return found  # type: ignore[return-value]
