"""Orders to parties, and what they send each other on the way: sealed, so that the server can only pass it on."""

import secrets
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flwr.app import Message, MessageType

from fedapp.common.errors import FederationError
from fedapp.server.exchange import Exchange
from fedapp.vertical.orders import Order, PartyAnswer, Payload, pack_order, unpack_answers
from fedapp.vertical.session import View
from fedapp.wire.records import said_of

__all__ = ["PartyFailedError", "Relay", "Traffic", "new_session"]


class PartyFailedError(FederationError):
    """`faults`: by party that gave no good reply, why."""

    def __init__(self, stage: str, faults: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"party {name} ({stage}): {why}" for name, why in sorted(faults.items())))
        self.faults = dict(faults)


@dataclass
class Traffic:
    """Bytes since they were last taken, in all and by party: to it (`down`), from it (`up`)."""

    down: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    up: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def take(self) -> "Traffic":
        found = Traffic(dict(self.down), dict(self.up))
        self.down.clear()
        self.up.clear()
        return found


class Relay:
    """Of one session. `hosts`: by party, its SuperNode. `ttl`: seconds that a message may take."""

    def __init__(self, exchange: Exchange, view: View, hosts: Mapping[str, int], timeout: float) -> None:
        self.view, self.hosts, self.traffic = view, hosts, Traffic()
        self._exchange, self._timeout = exchange, timeout
        self._number = 0
        self._mail: dict[str, dict[tuple[str, str], Payload]] = defaultdict(dict)  # by receiver; sender and purpose

    def ask(self, stage: str, parties: Collection[str], **values: Any) -> dict[str, PartyAnswer]:
        """One stage, with all parties at once. Raises PartyFailedError where one of them gives no good reply; what was
        sent to them then stays for the next time."""
        self._number += 1
        mail = {name: tuple(self._mail[name].values()) for name in sorted(parties)}
        order = Order(stage, self.view.session, self._number, mail, **values)
        answers, faults = self._exchanged(order)
        for name in parties:
            if name not in answers:
                faults.setdefault(name, f"no reply within {self._timeout:g} s")
            elif answers[name].fault:
                faults[name] = answers[name].fault
        if faults:
            raise PartyFailedError(stage, faults)
        for name in parties:
            self._mail[name].clear()
        for name, answer in answers.items():
            self._post(name, answer.payloads)
        return answers

    def drop(self, party: str) -> None:
        """What waits for a party is of an exchange that will be repeated."""
        self._mail[party].clear()

    def _post(self, sender: str, payloads: Iterable[Payload]) -> None:
        for payload in payloads:
            if payload.party in self.hosts:
                mine = replace(payload, party=sender)
                self._mail[payload.party][sender, payload.purpose] = mine

    def _exchanged(self, order: Order) -> tuple[dict[str, PartyAnswer], dict[str, str]]:
        by_node: dict[int, dict[str, tuple[Payload, ...]]] = defaultdict(dict)
        for name, payloads in order.payloads.items():
            by_node[self.hosts[name]][name] = tuple(payloads)
        messages = []
        for node, own in by_node.items():
            content = pack_order(replace(order, payloads=own))
            for name, payloads in own.items():
                self.traffic.down[name] += sum(len(payload.sealed) for payload in payloads)
            messages.append(
                Message(content, node, MessageType.TRAIN, ttl=2 * self._timeout, group_id=str(order.number))
            )
        answers: dict[str, PartyAnswer] = {}
        faults: dict[str, str] = {}
        for reply in self._exchange(messages, self._timeout):
            node = reply.metadata.src_node_id
            asked = [name for name, host in self.hosts.items() if host == node and name in order.payloads]
            try:
                if reply.has_error():
                    raise ValueError(f"error {reply.error.code}: {reply.error.reason}")
                found, _ = unpack_answers(reply.content)
                if set(found) != set(asked):
                    raise ValueError("it is not about the parties that were asked")
            except Exception as error:  # whatever it is, it is the sender's
                faults |= dict.fromkeys(asked, f"bad reply: {said_of(error)}")
                continue
            answers |= found
            for name, answer in found.items():
                self.traffic.up[name] += sum(len(payload.sealed) for payload in answer.payloads)
        return answers, faults


def new_session() -> str:
    return secrets.token_hex(8)
