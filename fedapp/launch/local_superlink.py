"""A simulation SuperLink of one's own: a free port, a home of its own, and an end with the run.

Flower's shared local SuperLink keeps running, keeps the folder it was first started in, and lets that folder's code
come before the bundle's. One SuperLink per call of scripts/run.py, in an empty folder, cannot mix up two checkouts.
"""

import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from fedapp.common.errors import FederationError
from fedapp.common.files import write_atomically
from fedapp.common.loopback import past_proxies
from fedapp.data.splits import SPLITS
from fedapp.flower.superlink_settings import IN_MEMORY, TASK_POLL_INTERVAL
from fedapp.launch.guard import Guard, end_family

__all__ = [
    "CONNECTION",
    "Connection",
    "LocalSuperLink",
    "flower_environment",
    "free_port",
    "wait_for_health",
    "write_connection",
]

CONNECTION = "fedapp"  # the name of the connection in the config.toml written here
START_TIMEOUT = 90.0  # seconds
LONGEST_FOLDER = 24  # characters: a socket's path has 107, of which Ray takes 65 and a folder of one's own 18
RAY_SETTINGS = {  # unless the person's environment has others
    # A message up to this size goes to a worker with its call, not by way of the object store: 3 ms less. Larger ones
    # take longer so.
    "RAY_max_direct_call_object_size": str(2 << 20),
    # Ray starts workers before it knows what environment they need, and then others: half a second of all cores.
    "RAY_prestart_worker_first_driver": "0",
}


def flower_environment(home: Path) -> dict[str, str]:
    """The environment for Flower's commands: this Python's programs first, nothing sent or fetched unasked."""
    return {
        **past_proxies(os.environ),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        # The packages of this environment serve; a fresh one for each run costs 20 s and more.
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        # How often Flower's launcher of processes looks for a message, or a run to start.
        TASK_POLL_INTERVAL: "0.2",
    }


def short_folder() -> str | None:
    """Where temporary folders go whose paths a socket's must begin with; None: where all go."""
    if len(tempfile.gettempdir()) <= LONGEST_FOLDER:
        return None
    return next((place for place in ("/tmp", "/var/tmp") if os.access(place, os.W_OK | os.X_OK)), None)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_connection(home: Path, settings: Mapping[str, str | bool]) -> None:
    """Make the SuperLink that `settings` describe the one that Flower's commands use under FLWR_HOME `home`."""
    lines = ["[superlink]", f'default = "{CONNECTION}"', "", f"[superlink.{CONNECTION}]"]
    # TOML's strings and booleans are JSON's.
    lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in settings.items()]
    write_atomically(home / "config.toml", ("\n".join(lines) + "\n").encode(), mode=0o600)


@dataclass(frozen=True)
class Connection:
    """How Flower's commands reach a SuperLink: a FLWR_HOME with a config.toml, and the environment that names it."""

    home: Path
    environment: Mapping[str, str]


def wait_for_health(process: subprocess.Popen[bytes], url: str, context: ssl.SSLContext | None = None) -> bool:
    """Whether the SuperLink at `url`, which is `process`, came up; False once it has ended, or after START_TIMEOUT."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(f"{url}/health", timeout=2, context=context) as answer:
                if answer.status == 200:
                    return True
        except (URLError, OSError):
            time.sleep(0.1)
    return False


class LocalSuperLink:
    """A `flower-superlink --simulation`. `start` returns at once, so that other work can go on meanwhile."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="fedapp-flwr-", dir=short_folder()))
        self.splits = self.home / "splits"
        self.splits.mkdir()
        # Ray's sockets and logs: in no folder that another user may have made, and gone with this one.
        own = {} if "RAY_ADDRESS" in os.environ else {"RAY_TMPDIR": str(self.home)}
        self.environment = {**RAY_SETTINGS, **own, **flower_environment(self.home), SPLITS: str(self.splits)}
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None
        self.port = free_port()
        write_connection(self.home, {"address": f"127.0.0.1:{self.port}", "insecure": True})

    def start(self) -> None:
        command = ["flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess"]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--database", IN_MEMORY]  # it ends with the call
        self._guard = Guard(self.home)
        with (self.home / "superlink.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=self.home, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def connection(self) -> Connection:
        return Connection(self.home, self.environment)

    def wait_until_ready(self) -> None:
        """Raises FederationError, with the log's end, if the SuperLink does not come up."""
        assert self._process is not None
        if not wait_for_health(self._process, f"http://127.0.0.1:{self.port}"):
            raise FederationError(f"flower-superlink did not start:\n{self.log_tail()}")

    def log_tail(self, lines: int = 20) -> str:
        """The last lines that the SuperLink and its processes wrote."""
        text = (self.home / "superlink.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def stop(self) -> None:
        """End the SuperLink, every process that it or its simulation started, and its home."""
        if self._guard is not None:
            self._guard.end()
        else:
            end_family(self.home)
        if self._process is not None:
            self._process.wait()
        self._process = self._guard = None
