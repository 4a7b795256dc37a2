"""The masked vectors of a round and their tags, as they come in to the server."""

import math
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import IO

import numpy as np
from flwr.app import Message

from fedapp.aggregation.helper.ask_helpers import Offered
from fedapp.aggregation.helper.carrier import CRASHED, Adder, Bytes, Carrier
from fedapp.aggregation.helper.helper_messages import Tags, unpack_masked_sum
from fedapp.aggregation.helper.run_keys import NO_HELPER
from fedapp.aggregation.helper.tags import Bound, Tag, fault_of
from fedapp.aggregation.reply_log import ReplyLog
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.wire.records import said_of
from fedapp.wire.reply import ClientReport

__all__ = ["Gathered"]

Choice = tuple[int, ...]  # the places of the helpers that a client has chosen, of those that were offered


@dataclass(frozen=True)
class Vector:
    """Of these clients' sum; in a file."""

    clients: tuple[int, ...]
    chosen: Choice
    file: IO[bytes]


class Gathered:
    """Vectors are added at once, in the memory of one for each choice of helpers: whoever says that it is a helper
    takes no client's place in the sum for the one that most have pinned. Each vector also goes to a temporary file, so
    that one whose tag a helper refuses can be left out.

    `bounds`: what tags for each helper are bound to. `length`: of a vector.
    """

    def __init__(self, carrier: Carrier, bounds: Sequence[Bound], offered: Offered, length: int) -> None:
        self._carrier, self._bounds, self._offered, self.length = carrier, bounds, offered, length
        self._adders: dict[Choice, Adder] = {}
        self._tags: dict[int, tuple[Tag, ...]] = {}
        self._chosen: dict[int, Choice] = {}
        self._vectors: list[Vector] = []

    def __enter__(self) -> "Gathered":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for choice in list(self._adders):
            self._close(choice)
        for vector in self._vectors:
            vector.file.close()

    @property
    def clients(self) -> tuple[int, ...]:
        """Who is in the sum."""
        return tuple(sorted(self._tags))

    @property
    def weight(self) -> float:
        """Of those in the sum; 1 is the cohort's mean."""
        return math.fsum(self._tags[client][0].weight for client in self.clients)

    def helpers(self) -> list[tuple[int, Bound, tuple[Tag, ...]]]:
        """By helper that the clients have chosen: its SuperNode, and the tags that are for it."""
        chosen = self._chosen[self.clients[0]]
        tags = [self._tags[client] for client in self.clients]
        return [
            (self._offered[place][0], replace(self._bounds[place], place=number), tuple(own[number] for own in tags))
            for number, place in enumerate(chosen)
        ]

    def total(self) -> Bytes:
        """Of all that is there, once settled."""
        return self._adder(self._chosen[self.clients[0]]).total()

    def take(self, message: Message, weights: Mapping[int, float], replies: ReplyLog) -> None:
        """One reply; whatever is wrong with it costs no more than its sender's part."""
        unpacked = replies.unpack(message)
        if unpacked is None or any(report.client in replies.unused for report in unpacked.reports):
            return
        try:
            reply, carried, tags = unpack_masked_sum(message.content)
            chosen = {client: self._choice(client, own, weights) for client, own in tags.items()}
            if carried is not None:
                (choice,) = set(chosen.values())
                self._put(tuple(sorted(tags)), choice, carried)
                self._tags |= {client: own for client, (own, _) in tags.items()}
                self._chosen |= chosen
        except OwnFaultError as error:
            replies.unused.update(dict.fromkeys((report.client for report in unpacked.reports), str(error)))
            return
        except Exception as error:  # whatever it is, it is the sender's
            for report in unpacked.reports:
                replies.reject(report.client, f"bad reply: {said_of(error)}")
            return
        # What a single client says of its training is not asked for, and not kept. That the keys of its helper are
        # missing is no fault of its own.
        for report in reply.reports:
            if (report.rejected or "").startswith(f"{NO_HELPER}: "):
                replies.unused[report.client] = str(report.rejected)
            else:
                replies.add([ClientReport(report.client, report.rejected, report.declined, privacy=report.privacy)])

    def settle(self, replies: ReplyLog) -> None:
        """Clients that have chosen other helpers than most are in no sum; where as many have, it is nobody's fault."""
        votes = Counter(self._chosen.values())
        if len(votes) < 2:
            return
        most = min(votes, key=lambda chosen: (-votes[chosen], chosen))
        why = "it has pinned another helper than most (node-config helper)"
        fewer = [client for client, chosen in self._chosen.items() if votes[chosen] < votes[most]]
        tied = [client for client, chosen in self._chosen.items() if chosen != most and client not in fewer]
        self.reject(dict.fromkeys(fewer, why), replies)
        self.reject(dict.fromkeys(tied, why.replace("most", "as many others")), replies, blame=False)

    def reject(self, faults: Mapping[int, str], replies: ReplyLog, *, blame: bool = True) -> None:
        """Take these clients out of the sum. Others whose vectors came in one sum with theirs are left out, too."""
        gone = [vector for vector in self._vectors if set(vector.clients) & faults.keys()]
        self._vectors = [vector for vector in self._vectors if vector not in gone]
        for vector in gone:
            vector.file.close()
            self._close(vector.chosen)  # the next one is made of those that are left
            for client in vector.clients:
                del self._tags[client], self._chosen[client]
                if client in faults and blame:
                    replies.reject(client, faults[client])
                else:
                    replies.unused[client] = faults.get(client, "its SuperNode's sum holds a client that was left out")

    def _put(self, clients: tuple[int, ...], choice: Choice, carried: Bytes) -> None:
        """Keep a vector and add it, or neither. Raises OwnFaultError for what is not the sender's."""
        try:
            file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the others)
            file.write(carried.tobytes())
            file.flush()
        except OSError as error:
            raise OwnFaultError(f"the server could not keep its vector: {error.strerror}") from None
        try:
            self._adder(choice).add(carried)
        except BaseException as error:
            file.close()
            if isinstance(error, ProtocolError) and error.kind == CRASHED:
                self._close(choice)  # what was added before it is added again
            raise
        self._vectors.append(Vector(clients, choice, file))

    def _adder(self, choice: Choice) -> Adder:
        """With what was added for these helpers so far. Raises OwnFaultError where that cannot be added again."""
        if choice not in self._adders:
            kept = [vector for vector in self._vectors if vector.chosen == choice]
            adder = self._carrier.adder(self._offered[choice[0]][1].public, self.length)
            self._adders[choice] = adder
            try:
                for vector in kept:
                    vector.file.seek(0)
                    adder.add(np.frombuffer(vector.file.read(), np.uint8))
            except ProtocolError as error:
                self._close(choice)
                raise OwnFaultError(f"the sum so far is lost: {error}") from None
        return self._adders[choice]

    def _close(self, choice: Choice) -> None:
        adder = self._adders.pop(choice, None)
        if adder is not None:
            adder.close()

    def _choice(self, client: int, own: Tags, weights: Mapping[int, float]) -> Choice:
        """The places of the helpers whose keys a client has taken. Raises ValueError for tags that are not its own."""
        tags, keys = own
        places = {bound.key: place for place, bound in enumerate(self._bounds)}
        if len(tags) != len(keys) or not keys or len(set(keys)) != len(keys) or not set(keys) <= places.keys():
            raise ValueError("its tags are for other helpers than there are")
        chosen = tuple(places[key] for key in keys)
        for number, (place, tag) in enumerate(zip(chosen, tags, strict=True)):
            if tag.weight != weights[client]:
                raise ValueError(f"its tag has a weight of {tag.weight:g}, it was given {weights[client]:g}")
            if fault := fault_of(tag, replace(self._bounds[place], place=number)):
                raise ValueError(fault)
        return chosen


class OwnFaultError(ProtocolError):
    """Of the server's machine, and of no client."""

    def __init__(self, why: str) -> None:
        super().__init__("lost sum", why)
