"""Connections to the gateway, bounded: who has shown no key soon goes, and who has one holds but a few.

A connection is known from the moment it is accepted, before TLS. That of a stranger, who has not shown an admitted key
yet, ends after `PATIENCE` seconds. When there are too many strangers, the address that most of them come from loses its
oldest one; when a key has too many connections, it loses its own oldest one.
"""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from fedapp.common.errors import FederationError

__all__ = ["Connections", "Door", "open_doors"]

Address = tuple[str, int]
PATIENCE = 10.0  # seconds to TLS and the head of a first call
MOST_STRANGERS = 128
MOST_OF_A_KEY = 12  # a SuperNode has about four: it polls, sends a heartbeat, and moves two parts of a message at once


class Connections:
    """All that are open, by the address they come from. `clock`: in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._strangers: dict[Address, tuple[float, socket.socket]] = {}  # the oldest first
        self._known: dict[bytes, dict[Address, socket.socket]] = {}
        self._sweep: asyncio.TimerHandle | None = None

    def came(self, address: Address, connection: socket.socket) -> None:
        """To be called from the event loop that serves the connection."""
        self._strangers.pop(address, None)
        self._strangers[address] = self._clock(), connection
        self._strangers = {at: (since, c) for at, (since, c) in self._strangers.items() if c.fileno() >= 0}
        if len(self._strangers) > MOST_STRANGERS:
            ((host, _),) = Counter(host for host, _ in self._strangers).most_common(1)
            self._end_stranger(next(at for at in self._strangers if at[0] == host))
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(PATIENCE, self._end_idle)

    def shows(self, address: Address, key: bytes) -> None:
        """The caller at this address has shown that it has the admitted key `key`."""
        if (found := self._strangers.pop(address, None)) is None:
            return
        mine = self._known.setdefault(key, {})
        for at in [at for at, connection in mine.items() if connection.fileno() < 0]:
            del mine[at]
        mine[address] = found[1]
        if len(mine) > MOST_OF_A_KEY:
            _end(mine.pop(next(iter(mine))))

    def end(self, address: Address) -> None:
        """Whatever it still sends or has not yet taken."""
        if address in self._strangers:
            self._end_stranger(address)
        for mine in self._known.values():
            if address in mine:
                _end(mine.pop(address))

    def end_all(self) -> None:
        for address in [*self._strangers, *(address for mine in self._known.values() for address in mine)]:
            self.end(address)

    def count(self) -> tuple[int, int]:
        """Of strangers, and of those with keys."""
        known = (connection for mine in self._known.values() for connection in mine.values())
        return len(self._strangers), sum(connection.fileno() >= 0 for connection in known)

    def _end_stranger(self, address: Address) -> None:
        _end(self._strangers.pop(address)[1])

    def _end_idle(self) -> None:
        now = self._clock()
        for address in [at for at, (since, _) in self._strangers.items() if now - since >= PATIENCE]:
            self._end_stranger(address)
        self._sweep = None
        if self._strangers:
            left = PATIENCE - (now - next(iter(self._strangers.values()))[0])
            self._sweep = asyncio.get_running_loop().call_later(max(left, 0.1), self._end_idle)


def _end(connection: socket.socket) -> None:
    """Its event loop sees the end of the stream, and closes it."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class Door(socket.socket):
    """A socket that listens, and tells of each connection that it accepts."""

    connections: Connections

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        connection, address = super().accept()
        self.connections.came(address[:2], connection)
        return connection, address


def open_doors(host: str, port: int, connections: Connections) -> list[Door]:
    """One for each address that `host` has here. Raises FederationError if the port cannot be had."""
    doors: list[Door] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in sorted(set(found)):
            door = Door(family, kind, protocol)
            doors.append(door)
            door.connections = connections
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            door.bind(address)
    except OSError as error:
        for door in doors:
            door.close()
        raise FederationError(f"{host}:{port}: cannot listen there ({error}); is another SuperLink running?") from None
    return doors
