"""What of a single reply becomes an update of a round."""

from collections.abc import Callable
from dataclasses import replace

from flwr.app import Message

from fedapp.aggregation.reply_log import ReplyLog
from fedapp.common.state_digest import State
from fedapp.server.asynchronous.job import Job
from fedapp.server.asynchronous.open_round import OpenRound
from fedapp.server.asynchronous.policy import Policy
from fedapp.wire.records import said_of
from fedapp.wire.reply import Reply

__all__ = ["read_reply"]


def read_reply(
    this: OpenRound,
    job: Job,
    message: Message,
    staleness: int,
    *,
    policy: Policy,
    decoded: Callable[[Reply, Job], State],
) -> None:
    """Into `this`, an update or why there is none. Whatever is wrong with a reply costs no more than its own update.
    `decoded`: the update that it holds, screened; raises for one that is not sound."""
    found, client = this.log, job.client
    own = ReplyLog(job.server_round, {client: message.metadata.src_node_id})
    reply = own.unpack(message)
    found.bytes_up += own.bytes_up
    found.strays += own.strays
    if reply is None:
        found.reject(client, "bad reply: it is to another message")
        found.add(own.reports.values())
        return
    found.add(reply.reports)
    report = found.reports[client]
    if report.rejected is not None or report.declined:
        return
    try:
        update = decoded(reply, job)
    except Exception as error:  # whatever it is, it is the sender's
        found.add([replace(report, rejected=said_of(error))])
        return
    if staleness > policy.max_staleness:
        found.unused[client] = policy.too_old(staleness)
        return
    this.updates[client], this.staleness[client] = update, staleness
