"""The four stages of a round of secure aggregation, on the server: messages out, and answers in."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from logging import INFO, WARNING

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.logger import log

from fedapp.aggregation.secaggplus.collector import Collector, Unmasked
from fedapp.aggregation.secaggplus.messages import (
    Header,
    content_bytes,
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
from fedapp.server.outcome import RoundOutcome
from fedapp.server.strategy import Ask
from fedapp.wire.instruction import Instruction
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
    """The messages of one round. Whoever does not answer a stage, or badly, is rejected and not asked again.

    `nodes`: on which SuperNode each client lives. `wanted`: with the keys of so many, a round that asked more goes on.
    `lr_factor` scales the clients' learning rate. A message lives for `message_ttl` seconds.
    """

    collector: Collector
    ask: Ask
    outcome: RoundOutcome
    nodes: Mapping[int, int]
    timeouts: Timeouts
    wanted: int
    lr_factor: float
    message_ttl: float

    def __call__(self, arrays: ArrayRecord) -> Unmasked:
        """All of them. Raises ProtocolError where nothing can be opened."""
        self.keys()
        self.shares()
        self.masked(arrays)
        return self.unmask()

    def keys(self) -> None:
        asked = set(self.outcome.weights)

        def add(client: int, record: ConfigRecord) -> None:
            self.collector.add_keys(client, *_keys(record))

        def enough() -> bool:
            return len(asked) > self.wanted <= len(self.collector.heard)

        self._stage("keys", asked, pack_question, self._each(add), self.timeouts.keys, enough)
        if enough():  # more were asked than are needed
            surplus = asked - self.collector.heard - self.outcome.reports.keys()
            self.outcome.unused.update(dict.fromkeys(surplus, "surplus: the round had its replies"))
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
            if client not in present and client not in self.outcome.reports:
                self.outcome.reject(client, "too few of those who hold its shares are left")

    def masked(self, arrays: ArrayRecord) -> None:
        collector = self.collector
        weights = collector.view.by_client

        def question(header: Header) -> RecordDict:
            instruction = Instruction(
                header.server_round,
                header.clients,
                tuple(weights[client].weight for client in header.clients),
                lr_factor=self.lr_factor,
                run=header.run,
            )
            sealed = {client: collector.sealed_for(client) for client in header.clients}
            return pack_masked(header, instruction, arrays, collector.present, sealed)

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
        for report in reply.reports:
            # What a single client says of its training is not asked for, and not kept.
            kept = ClientReport(report.client, report.rejected, report.declined, privacy=report.privacy)
            self.outcome.reports[report.client] = kept
            if report.declined:
                self.outcome.unused[report.client] = "declined: its privacy budget is spent"

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
            log(INFO, "round %d: clients %s are in the sum, and gone", self.outcome.server_round, sorted(silent)[:20])
        return collector.open()

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
        by_node: dict[int, list[int]] = defaultdict(list)
        for client in sorted(clients):
            by_node[self.nodes[client]].append(client)
        digest = self.collector.view.digest if stage != "keys" else b""
        headers = {
            node: Header(stage, self.collector.run, self.outcome.server_round, tuple(found), digest)
            for node, found in by_node.items()
        }
        log(INFO, "round %d: %s of %d clients", self.outcome.server_round, stage, sum(map(len, by_node.values())))
        answered: set[int] = set()
        messages = [self._message(node, header, question(header)) for node, header in headers.items()]
        for reply in self.ask(messages, timeout):
            self._take(reply, headers, answered, take, blame)
            if enough():
                return
        for node in headers.keys() - answered:
            self._reject(headers[node], f"no reply in time ({stage})", blame)

    def _message(self, node: int, header: Header, content: RecordDict) -> Message:
        self.outcome.bytes_down += content_bytes(content)
        kind = f"train.{header.stage}"
        return Message(content, node, kind, ttl=self.message_ttl, group_id=str(header.server_round))

    def _take(self, reply: Message, headers: Mapping[int, Header], answered: set[int], take: Take, blame: bool) -> None:
        """One reply; whatever is wrong with it costs no more than its sender's part."""
        node, outcome = reply.metadata.src_node_id, self.outcome
        if node not in headers or node in answered:
            outcome.strays.append(f"SuperNode {node} {'answered twice' if node in answered else 'was not asked'}")
            return
        answered.add(node)
        header = headers[node]
        try:
            if reply.has_error():
                raise ValueError(f"error {reply.error.code}: {reply.error.reason}")
            outcome.bytes_up += content_bytes(reply.content)
            unpack_header(reply.content).expect(header)
            take(header, reply.content)
        except Exception as error:  # whatever it is, it is the sender's
            self._reject(header, f"bad reply ({header.stage}): {text(error) or type(error).__name__}", blame)

    def _each(self, add: Callable[[int, ConfigRecord], None]) -> Take:
        """Take each client's answer by `add`, or reject that client."""

        def take(header: Header, content: RecordDict) -> None:
            answers, refused = unpack_answers(content, header.clients)
            for client, why in refused.items():
                self.outcome.reject(client, f"{header.stage}: {why}")
            for client, record in answers.items():
                try:
                    add(client, record)
                except (ProtocolError, ValueError, KeyError, TypeError) as error:
                    self.outcome.reject(client, f"{header.stage}: bad reply: {text(error) or type(error).__name__}")

        return take

    def _reject(self, header: Header, why: str, blame: bool) -> None:
        for client in header.clients:
            if not blame:
                log(WARNING, "round %d: client %d reveals nothing: %s", header.server_round, client, why)
            else:
                self.outcome.reject(client, why)


def _keys(record: ConfigRecord) -> tuple[bytes, bytes, bytes]:
    found = tuple(record[name] for name in ("cipher-key", "mask-key", "signature"))
    if not all(isinstance(item, bytes) for item in found):
        raise TypeError("keys are bytes")
    return found  # type: ignore[return-value]
