"""A server's questions to helpers."""

import time
from logging import INFO, WARNING

from flwr.app import ConfigRecord, Message, MessageType, RecordDict

from fedapp.aggregation.helper.helper_messages import (
    HELPER_KEYS,
    HELPER_SUM,
    RESULT,
    SumRequest,
    pack_sum_request,
    unpack_run_keys,
    unpack_sum_reply,
)
from fedapp.aggregation.helper.run_keys import NO_HELPER, RunKeys, check_sizes
from fedapp.aggregation.protocol import Ask, Cohort
from fedapp.aggregation.reply_log import ReplyLog
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.common.logger import log
from fedapp.common.state_digest import State
from fedapp.wire.instruction import with_stage
from fedapp.wire.records import arrays_to_state, said_of

__all__ = ["AskHelpers", "Offered"]

Offered = list[tuple[int, RunKeys]]  # by SuperNode, in the order in which clients are told of them


class AskHelpers:
    """`wanted`: how many there must be. `timeout`: seconds to wait for each answer. `most_public`: bytes of a key.
    Keys are asked for once in a run, and again once a helper has not answered, or has forgotten them."""

    def __init__(self, wanted: int, timeout: float, most_public: int) -> None:
        self._wanted, self._timeout, self._most_public = wanted, timeout, most_public
        self._known: dict[int, RunKeys] = {}  # by SuperNode
        self._run = ""
        self._silent: set[int] = set()  # who has not answered is waited for only where it is needed

    def keys(self, cohort: Cohort, run: str, version: int, ask: Ask, replies: ReplyLog) -> tuple[Offered, State | None]:
        """The keys of all helpers that are there; and the newest model, where a helper has a newer one than `version`.
        Raises ProtocolError where there are too few."""
        if run != self._run:
            self._known, self._run = {}, run
        newer: State | None = None
        for node in cohort.helpers:
            if node in self._known or (node in self._silent and len(self._known) >= self._wanted):
                continue
            record = RecordDict({HELPER_KEYS: ConfigRecord({"run": run, "version": version})})
            content = self._asked(node, HELPER_KEYS, record, cohort, ask, replies)
            if content is None:
                continue
            try:
                keys = unpack_run_keys(content.config_records[HELPER_KEYS])
                check_sizes(keys, self._most_public)
                self._known[node] = keys
                if version >= 0 and RESULT in content.array_records:
                    newer = arrays_to_state(content.array_records[RESULT])
            except Exception as error:  # whatever it is, it is the sender's
                log(WARNING, "SuperNode %d, a helper: bad reply: %s", node, said_of(error))
        found = [(node, self._known[node]) for node in cohort.helpers if node in self._known]
        if len(found) < self._wanted:
            raise ProtocolError(
                NO_HELPER,
                f"{len(found)} of {self._wanted} helpers answer; waiting for a SuperNode with role=helper in its"
                " node-config (scripts/deploy/supernode --role helper), with this version of the code",
            )
        return found, newer

    def ask_all_again(self) -> None:
        """After a round that changed nothing: the one that clients have pinned may be one that did not answer, while
        another has said that it is the helper."""
        self._silent.clear()

    def sum(self, node: int, request: SumRequest, cohort: Cohort, ask: Ask, replies: ReplyLog) -> tuple[State, str]:
        """What a helper gives for these tags. Raises ProtocolError."""
        content = self._asked(node, HELPER_SUM, pack_sum_request(request), cohort, ask, replies)
        if content is None:
            raise ProtocolError(NO_HELPER, f"the helper (SuperNode {node}) did not answer; waiting for it")
        try:
            return unpack_sum_reply(content)
        except ProtocolError as error:
            if not error.accused:
                self._known.pop(node, None)  # it may have other keys by now
            raise
        except Exception as error:  # whatever it is, it is the sender's
            raise ProtocolError("truncated", f"the helper's reply is malformed: {said_of(error)}") from None

    def _asked(
        self, node: int, stage: str, content: RecordDict, cohort: Cohort, ask: Ask, replies: ReplyLog
    ) -> RecordDict | None:
        """The content of its reply; None where none came."""
        replies.sent(with_stage(content, stage))
        group, start = str(replies.server_round), time.monotonic()
        message = Message(content, node, MessageType.TRAIN, ttl=cohort.message_ttl, group_id=group)
        for reply in ask([message], self._timeout):
            if reply.metadata.src_node_id != node:
                continue
            if reply.has_error():
                log(WARNING, "SuperNode %d, a helper: %s", node, reply.error.reason)
                break
            replies.received(reply.content)
            log(INFO, "round %s: %s took %.2f s", group, stage, time.monotonic() - start)
            self._silent.discard(node)
            return reply.content
        self._known.pop(node, None)
        self._silent.add(node)
        return None
