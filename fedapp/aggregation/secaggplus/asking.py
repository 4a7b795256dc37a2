"""A stage of a round, on the server: messages out, replies in, and whose fault is what."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from logging import INFO, WARNING

from flwr.app import ConfigRecord, Message, MessageType, RecordDict

from fedapp.aggregation.protocol import Ask, Cohort, by_supernode
from fedapp.aggregation.reply_log import ReplyLog
from fedapp.aggregation.secaggplus.messages import Header, unpack_accused, unpack_answers, unpack_header
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.common.logger import log
from fedapp.wire.instruction import with_stage
from fedapp.wire.records import said_of

__all__ = ["Asking"]

Take = Callable[[Header, RecordDict], None]
Add = Callable[[int, ConfigRecord], None]
Named = Callable[[int, Collection[int]], object]


@dataclass(frozen=True)
class Asking:
    """Of a round of `run` with `cohort`."""

    run: str
    cohort: Cohort
    ask: Ask
    replies: ReplyLog

    def stage(
        self,
        stage: str,
        clients: Iterable[int],
        question: Callable[[Header], RecordDict],
        take: Take,
        timeout: float,
        enough: Callable[[], bool] = lambda: False,
        *,
        digest: bytes = b"",
        blame: bool = True,
    ) -> None:
        """Ask every SuperNode about its clients, and `take` the answers as they come. With `blame`, clients without a
        good one are rejected: their update is not in the sum. `digest`: of the round's view."""
        by_node = by_supernode(clients, self.cohort.hosts)
        headers = {
            node: Header(stage, self.run, self.replies.server_round, tuple(found), digest)
            for node, found in by_node.items()
        }
        log(INFO, "round %d: %s of %d clients", self.replies.server_round, stage, sum(map(len, by_node.values())))
        answered: set[int] = set()
        messages = [self._message(node, header, question(header)) for node, header in headers.items()]
        begun = time.monotonic()
        for reply in self.ask(messages, timeout):
            self._take(reply, headers, answered, take, blame)
            if enough():
                break
        else:
            for node in headers.keys() - answered:
                self._reject(headers[node], f"no reply in time ({stage})", blame)
        log(INFO, "round %d: %s took %.2f s", self.replies.server_round, stage, time.monotonic() - begun)

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
            self._reject(header, f"bad reply ({header.stage}): {said_of(error)}", blame)

    def _reject(self, header: Header, why: str, blame: bool) -> None:
        for client in header.clients:
            if not blame:
                log(WARNING, "round %d: client %d reveals nothing: %s", header.server_round, client, why)
            else:
                self.replies.reject(client, why)

    def each(self, add: Add, named: Named = lambda client, accused: False) -> Take:
        """Take each client's answer by `add`, or reject that client; `named` may say that others are to blame."""

        def take(header: Header, content: RecordDict) -> None:
            answers, refused = unpack_answers(content, header.clients)
            accused = unpack_accused(content, refused)
            for client, why in refused.items():
                self.replies.reject(client, f"{header.stage}: {why}")
                named(client, accused.get(client, ()))
            for client, record in answers.items():
                try:
                    add(client, record)
                except (ProtocolError, ValueError, KeyError, TypeError) as error:
                    self.replies.reject(client, f"{header.stage}: bad reply: {said_of(error)}")

        return take

    def take_each(self, header: Header, content: RecordDict, add: Add) -> None:
        """Take each client's answer by `add`. Those without a good one are in the sum already, and so not rejected."""
        answers, refused = unpack_answers(content, header.clients)
        for client, why in refused.items():
            log(WARNING, "round %d: client %d reveals nothing: %s", header.server_round, client, why)
        for client, record in answers.items():
            try:
                add(client, record)
            except (ProtocolError, ValueError, KeyError, TypeError) as error:
                log(WARNING, "round %d: client %d: %s", header.server_round, client, said_of(error))
