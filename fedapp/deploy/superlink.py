"""scripts/deploy/superlink: a SuperLink with TLS, authenticated SuperNodes and a database that lasts."""

import ssl
import time
from argparse import ArgumentParser
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from fedapp.common.errors import FederationError
from fedapp.deploy import terminal
from fedapp.deploy.admission import Changes, admit, public_keys
from fedapp.deploy.folders import SuperLinkFolder, make_private_file, make_private_folder, read_superlink
from fedapp.deploy.gateway import Gateway
from fedapp.deploy.identity import expiry
from fedapp.deploy.only_one import only_one
from fedapp.deploy.program import Program
from fedapp.launch.guard import Guard
from fedapp.launch.local_superlink import flower_environment, wait_for_health

__all__ = ["DeployedSuperLink", "main"]

POLL = 1.0  # seconds
RETRY = 10.0  # seconds
Keys = tuple[dict[str, bytes], dict[str, str]]  # by site, its key, and why there is none
EXAMPLE = """Example:
  scripts/deploy/superlink --folder federation/superlink --host 0.0.0.0
SuperNodes connect to the port in superlink.toml, and get messages there and nothing else. Runs are started at its
control_port, which is open on this machine only. Keys put into keys/, or taken out, count within seconds."""


class DeployedSuperLink:
    """A SuperLink that runs from its start-up folder; its database is in `state`."""

    def __init__(
        self,
        folder: SuperLinkFolder,
        state: Path,
        host: str,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._state, self._host, self._say = folder, state, host, say
        self._clock = clock
        self._admitted: Keys | None = None  # as they were registered
        self._tried: Keys = ({}, {})  # in vain, not to be tried again before `_due`
        self._due = 0.0
        self._registered: Collection[bytes] = frozenset()
        self._program: Program | None = None
        self._gateway: Gateway | None = None

    @property
    def _control(self) -> str:
        return f"127.0.0.1:{self._folder.control_port}"

    def start(self) -> None:
        """Returns once SuperNodes can connect. Raises FederationError if the SuperLink does not come up."""
        folder = self._folder
        command = ["flower-superlink", "--isolation", "subprocess", "--enable-supernode-auth"]
        command += ["--disable-runtime-dependency-installation"]
        command += ["--ssl-certfile", str(folder.certificate), "--ssl-keyfile", str(folder.key)]
        command += [
            "--ssl-ca-certfile",
            str(folder.authority),
            "--database",
            str(make_private_file(self._state / "superlink.db")),
        ]
        command += ["--host", "127.0.0.1", "--port", str(folder.control_port)]
        self._program = Program(command, home=self._state, environment=flower_environment(self._state), say=self._say)
        context = ssl.create_default_context(cafile=str(folder.authority))
        if not wait_for_health(self._program.process, f"https://{self._control}", context):
            raise FederationError(f"flower-superlink did not start:\n{self._program.tail()}")
        for name, what in self.admit().items():
            self._say(f"{name}: {what}")
        self._gateway = Gateway(
            upstream=f"https://{self._control}",
            authority=folder.authority,
            certificate=folder.certificate,
            key=folder.key,
            signatures=folder.signatures,
            host=self._host,
            port=folder.port,
            admitted=lambda: self._registered,
        )
        self._gateway.start()

    def admit(self) -> Changes:
        """Register and unregister SuperNodes as the folder's keys say, if they have changed; what was done.

        Whatever it raises, it is tried again, after `RETRY` seconds or when the keys have changed.
        """
        found = keys, faults = public_keys(self._folder.public_keys)
        if found == self._admitted or (found == self._tried and self._clock() < self._due):
            return {}
        self._tried, self._due = found, self._clock() + RETRY
        changes = admit(self._control, self._folder.authority, keys, faults, self._note_registered)
        self._admitted = found
        return {**faults, **changes}

    def _note_registered(self, keys: Collection[bytes]) -> None:
        self._registered = keys

    def ended(self) -> str | None:
        """What Flower's program printed last, once it has ended by itself; None while it runs."""
        assert self._program is not None
        return None if self._program.ended() is None else self._program.tail()

    def close(self) -> None:
        """Stop serving SuperNodes."""
        if self._gateway is not None:
            self._gateway.stop()

    def stop(self) -> None:
        self.close()
        if self._program is not None:
            self._program.stop()


def parser() -> ArgumentParser:
    made = terminal.parser(__doc__, EXAMPLE)
    made.add_argument("--folder", type=Path, required=True, help="the SuperLink's start-up folder, from provision")
    made.add_argument("--host", default="127.0.0.1", help="the address to listen on; 0.0.0.0 for all (127.0.0.1)")
    return made


def main(arguments: Sequence[str]) -> int:
    given = parser().parse_args(arguments)
    folder = read_superlink(given.folder.absolute())
    state = make_private_folder(folder.folder / "state")
    with only_one(state, "superlink"):
        guard = Guard(state, keep=True)
        superlink = DeployedSuperLink(folder, state, given.host, terminal.say)
        try:
            superlink.start()
            until = f"{expiry(folder.certificate):%Y-%m-%d}"
            terminal.say(f"SuperLink ready at {given.host}:{folder.port}, certificate until {until}")
            while (printed := superlink.ended()) is None:
                time.sleep(POLL)
                for name, what in _changes(superlink).items():
                    terminal.say(f"{name}: {what}")
            raise FederationError(f"flower-superlink ended:\n{printed}")
        finally:
            terminal.ignore_signals()  # what remains is clearing up, which must not be cut short
            superlink.stop()
            guard.end()


def _changes(superlink: DeployedSuperLink) -> Changes:
    try:
        return superlink.admit()
    except Exception as error:  # of Flower's control interface, and no reason to stop: it is tried again
        terminal.say(f"error: keys/: not all changes count yet, trying again in {RETRY:.0f} s: {error!r}")
        return {}
