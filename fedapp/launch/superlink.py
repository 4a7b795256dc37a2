"""A simulation SuperLink of one's own: a free port, a home of its own, and an end with the run.

Flower's shared local SuperLink keeps running, keeps the folder it was first started in, and lets that folder's code
come before the bundle's. One SuperLink per call of scripts/run.py, in an empty folder, cannot mix up two checkouts.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from fedapp.errors import FederationError
from fedapp.launch import guard
from fedapp.launch.guard import end_family

__all__ = ["CONNECTION", "LocalSuperLink", "flower_environment"]

CONNECTION = "fedapp"  # the name of the connection in the config.toml written here
START_TIMEOUT = 90.0  # seconds


def flower_environment(home: Path) -> dict[str, str]:
    """The environment for Flower's commands: this Python's programs first, nothing sent or fetched unasked."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        # The packages of this environment serve; a fresh one for each run costs 20 s and more.
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


class LocalSuperLink:
    """A `flower-superlink --simulation`. `start` returns at once, so that other work can go on meanwhile."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="fedapp-flwr-"))
        self.environment = flower_environment(self.home)
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        config = f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
        (self.home / "config.toml").write_text(config + f'address = "127.0.0.1:{self.port}"\ninsecure = true\n')

    def start(self) -> None:
        command = ["flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess"]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--database", str(self.home / "state.db")]
        with (self.home / "superlink.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=self.home, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        # Whatever ends this program, nothing is left behind.
        self._guard = subprocess.Popen(
            [sys.executable, guard.__file__, str(self.home)], stdin=subprocess.PIPE, start_new_session=True
        )

    @property
    def pid(self) -> int:
        """The SuperLink's process id. Raises RuntimeError before `start`."""
        if self._process is None:
            raise RuntimeError("the SuperLink has not been started")
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Raises FederationError, with the log's end, if the SuperLink does not come up."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                break
            try:
                with urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2) as answer:
                    if answer.status == 200:
                        return
            except (URLError, OSError):
                time.sleep(0.1)
        raise FederationError(f"flower-superlink did not start:\n{self.log_tail()}")

    def log_tail(self, lines: int = 20) -> str:
        """The last lines that the SuperLink and its processes wrote."""
        text = (self.home / "superlink.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def stop(self) -> None:
        """End the SuperLink, every process that it or its simulation started, and its home."""
        end_family(self.home)
        for process in (self._process, self._guard):
            if process is not None:
                if process.stdin is not None:
                    process.stdin.close()
                process.wait()
        self._process = self._guard = None
