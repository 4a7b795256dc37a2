"""A round's replies as they come in: what became of each client that was asked, and whose fault was what."""

from collections.abc import Iterable, Mapping

from flwr.app import Message, RecordDict

from fedapp.wire.records import content_bytes, said_of, text
from fedapp.wire.reply import ClientReport, Reply, unpack_reply

__all__ = ["ReplyLog"]

DECLINED = "declined: its privacy budget is spent"
SURPLUS = "surplus: the round had its replies"


class ReplyLog:
    """`hosts`: by client asked, the SuperNode that does its work.

    `reports`: by client, one for each that replied or failed. `strays`: rejections that belong to no client asked (a
    stranger's, a late or a second reply). `unused`: clients that did nothing wrong and yet are in no sum, with why.
    """

    def __init__(self, server_round: int, hosts: Mapping[int, int]) -> None:
        self.server_round, self.hosts = server_round, hosts
        self._asked: dict[int, list[int]] = {}  # by SuperNode
        for client in sorted(hosts):
            self._asked.setdefault(hosts[client], []).append(client)
        self.reports: dict[int, ClientReport] = {}
        self.strays: list[str] = []
        self.unused: dict[int, str] = {}
        self.bytes_down = self.bytes_up = 0

    @property
    def good(self) -> list[ClientReport]:
        """Reports with nothing wrong, by client; who declined is not among them."""
        found = [self.reports[client] for client in sorted(self.reports)]
        return [report for report in found if report.rejected is None and not report.declined]

    @property
    def used(self) -> list[ClientReport]:
        """Reports of the clients whose updates are in the sum."""
        return [report for report in self.good if report.client not in self.unused]

    @property
    def rejected(self) -> int:
        return sum(report.rejected is not None for report in self.reports.values()) + len(self.strays)

    # --- while replies come -------------------------------------------------------------------------------------

    def sent(self, content: RecordDict) -> None:
        self.bytes_down += content_bytes(content)

    def received(self, content: RecordDict) -> None:
        self.bytes_up += content_bytes(content)

    def add(self, reports: Iterable[ClientReport]) -> None:
        for report in reports:
            self.reports[report.client] = report
            if report.declined:
                self.unused[report.client] = DECLINED

    def reject(self, client: int, reason: str) -> None:
        self.reports[client] = ClientReport(client, rejected=reason)

    def unpack(self, message: Message) -> Reply | None:
        """The reply in a message, or None after rejecting those who should have been in it."""
        node = message.metadata.src_node_id
        asked = self._asked.get(node, [])
        if message.metadata.group_id != str(self.server_round):
            self.strays.append(f"SuperNode {node} replied too late: to round {text(message.metadata.group_id)}")
            return None
        if not asked or any(client in self.reports for client in asked):
            self.strays.append(f"SuperNode {node} {'answered twice' if asked else 'was not asked'}")
            return None
        try:
            if message.has_error():
                raise ValueError(f"error {message.error.code}: {message.error.reason}")
            reply = unpack_reply(message.content)
            if sorted(report.client for report in reply.reports) != asked:
                raise ValueError("it is not about the clients that were asked")
        except Exception as error:  # whatever it is, it is the sender's
            for client in asked:
                self.reject(client, f"bad reply: {said_of(error)}")
            return None
        self.received(message.content)
        return reply

    def leave_out(self, why: str) -> None:
        """The round changes nothing: clients with nothing wrong are in no sum."""
        for report in self.good:
            self.unused.setdefault(report.client, why)

    def close(self, *, enough: bool) -> None:
        """No more replies come: a client that has not replied failed, unless the round had `enough` without it."""
        for client in self.hosts:
            if client not in self.reports and client not in self.unused:
                if enough:
                    self.unused[client] = SURPLUS
                else:
                    self.reject(client, "no reply in time")
