"""Replies opened and screened: whatever a client sends costs no more than its own update."""

from collections.abc import Mapping

from flwr.app import Message
from torch import Tensor

from fedapp.aggregation.exact_sum import examine
from fedapp.aggregation.rules import AggregationRule
from fedapp.server.outcome import RoundOutcome
from fedapp.wire.records import tensor_bytes, text
from fedapp.wire.reply import Reply, unpack_reply

__all__ = ["open_reply", "take_reply"]

State = Mapping[str, Tensor]


def open_reply(message: Message, outcome: RoundOutcome, nodes: Mapping[int, int]) -> Reply | None:
    """The reply in a message, or None after rejecting those who should have been in it.

    `nodes`: which SuperNode was asked to do each client's work.
    """
    node = message.metadata.src_node_id
    asked = [client for client in sorted(outcome.weights) if nodes[client] == node]
    if message.metadata.group_id != str(outcome.server_round):
        outcome.strays.append(f"SuperNode {node} replied too late: to round {text(message.metadata.group_id)}")
        return None
    if not asked or any(client in outcome.reports for client in asked):
        outcome.strays.append(f"SuperNode {node} {'answered twice' if asked else 'was not asked'}")
        return None
    try:
        if message.has_error():
            raise ValueError(f"error {message.error.code}: {message.error.reason}")
        reply = unpack_reply(message.content)
        if sorted(report.client for report in reply.reports) != asked:
            raise ValueError("it is not about the clients that were asked")
    except Exception as error:  # whatever it is, it is the sender's
        for client in asked:
            outcome.reject(client, f"bad reply: {text(error) or type(error).__name__}")
        return None
    outcome.bytes_up += tensor_bytes(message.content)
    return reply


def take_reply(
    reply: Reply, outcome: RoundOutcome, rule: AggregationRule, template: State, *, max_norm: float | None
) -> None:
    """Screen one reply and give what is good in it to `rule`."""
    outcome.reports.update({report.client: report for report in reply.reports})
    good = [report.client for report in reply.reports if report.rejected is None and not report.declined]
    declined = [report.client for report in reply.reports if report.declined]
    outcome.unused.update(dict.fromkeys(declined, "declined: its privacy budget is spent"))
    if reply.total:
        fault = _take_sum(reply, good, outcome, rule, max_norm)
        for client in good if fault else ():
            outcome.reject(client, text(fault))
        return
    for client in good:
        update = reply.updates.get(client)
        if update is None:
            outcome.reject(client, "bad reply: no update")
        elif (screening := examine(update, template, max_norm=max_norm)).fault is not None:
            outcome.reject(client, text(screening.fault))
        else:
            # In the model's order: who sends it may not choose how a rule lines it up with the others'.
            ordered = {key: update[key] for key in template}
            rule.add(client, ordered, outcome.weights[client], screening.largest)


def _take_sum(
    reply: Reply, good: list[int], outcome: RoundOutcome, rule: AggregationRule, max_norm: float | None
) -> str | None:
    """Why the sum cannot be used, or None. One client's alone would go past what is screened of single updates."""
    if reply.updates or len(reply.reports) < 2:
        return f"bad reply: a sum for {len(reply.reports)} clients beside {len(reply.updates)} updates"
    if not good:
        return "bad reply: a sum of nobody's updates"
    return rule.add_sum(reply.total, [outcome.weights[client] for client in good], max_norm=max_norm)
