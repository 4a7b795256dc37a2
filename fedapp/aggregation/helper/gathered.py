"""The masked vectors of a round and their tags, as they come in to the server."""

import math
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import IO

import numpy as np
from flwr.app import Message

from fedapp.aggregation.helper.ask_helpers import Offered
from fedapp.aggregation.helper.carrier import Bytes, Carrier
from fedapp.aggregation.helper.helper_messages import Tags, unpack_masked_sum
from fedapp.aggregation.helper.tags import Bound, Tag, fault_of
from fedapp.aggregation.reply_log import ReplyLog
from fedapp.wire.records import said_of
from fedapp.wire.reply import ClientReport

__all__ = ["Gathered"]


class Gathered:
    """Vectors are added at once, in the memory of one. Each also goes to a temporary file, so that one whose tag a
    helper refuses can be left out.

    `bounds`: what tags for each helper are bound to. `length`: of a vector.
    """

    def __init__(self, carrier: Carrier, bounds: Sequence[Bound], offered: Offered, length: int) -> None:
        self._carrier, self._bounds, self._offered, self.length = carrier, bounds, offered, length
        self._public = offered[0][1].public
        self._adder = carrier.adder(self._public, length)
        self._tags: dict[int, tuple[Tag, ...]] = {}
        self._chosen: dict[int, tuple[int, ...]] = {}  # by client, the places of its helpers
        self._vectors: list[tuple[tuple[int, ...], IO[bytes]]] = []  # of which clients, and where

    def __enter__(self) -> "Gathered":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._adder.close()
        for _, file in self._vectors:
            file.close()

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
        return self._adder.total()

    def take(self, message: Message, weights: Mapping[int, float], replies: ReplyLog) -> None:
        """One reply; whatever is wrong with it costs no more than its sender's part."""
        unpacked = replies.unpack(message)
        if unpacked is None:
            return
        try:
            reply, carried, tags = unpack_masked_sum(message.content)
            chosen = {client: self._choice(client, own, weights) for client, own in tags.items()}
            if carried is not None:
                self._adder.add(carried)
                file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the others)
                self._vectors.append((tuple(sorted(tags)), file))
                file.write(carried.tobytes())
                self._tags |= {client: own for client, (own, _) in tags.items()}
                self._chosen |= chosen
        except Exception as error:  # whatever it is, it is the sender's
            for report in unpacked.reports:
                replies.reject(report.client, f"bad reply: {said_of(error)}")
            return
        # What a single client says of its training is not asked for, and not kept.
        told = (ClientReport(r.client, r.rejected, r.declined, privacy=r.privacy) for r in reply.reports)
        replies.add(told)

    def settle(self, replies: ReplyLog) -> None:
        """Clients that have chosen other helpers than most are in no sum."""
        votes = Counter(self._chosen.values())
        if len(votes) > 1:
            most = min(votes, key=lambda chosen: (-votes[chosen], chosen))
            others = [client for client, chosen in self._chosen.items() if chosen != most]
            self.reject(dict.fromkeys(others, "it has pinned another helper than most (node-config helper)"), replies)

    def reject(self, faults: Mapping[int, str], replies: ReplyLog) -> None:
        """Take these clients out of the sum. Others whose vectors came in one sum with theirs are left out, too."""
        kept = []
        for clients, file in self._vectors:
            if not set(clients) & faults.keys():
                kept.append((clients, file))
                continue
            file.close()
            for client in clients:
                del self._tags[client], self._chosen[client]
                if client in faults:
                    replies.reject(client, faults[client])
                else:
                    replies.unused[client] = "its SuperNode's sum holds a client that was rejected"
        self._vectors = kept
        self._adder.close()
        self._adder = self._carrier.adder(self._public, self.length)
        for _, file in kept:
            file.seek(0)
            self._adder.add(np.frombuffer(file.read(), np.uint8))

    def _choice(self, client: int, own: Tags, weights: Mapping[int, float]) -> tuple[int, ...]:
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
