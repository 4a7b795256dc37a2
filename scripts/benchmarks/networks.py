"""Hosts in network namespaces of this machine, each behind a link of its own that can be slow, or down.

Needs root and a kernel with network namespaces, veth pairs and `tc tbf`; `why_not` says what is missing.
"""

import os
import shutil
import subprocess
import uuid
from functools import cache
from types import TracebackType

__all__ = ["ADDRESS", "Host", "Network", "why_not"]

TOOLS = ("ip", "tc")
ADDRESS = "10.77.0.1"  # of the server


def _in(namespace: str) -> list[str]:
    return ["ip", "netns", "exec", namespace]


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


@cache
def why_not() -> str:
    """Why there can be no such network here; "" where there can."""
    if missing := [name for name in TOOLS if shutil.which(name) is None]:
        return f"needs {' and '.join(missing)} (iproute2)"
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    try:
        with Network() as network:
            network.add("probe", kilobits=1000)
    except OSError as error:
        return f"this kernel does not allow it: {error}"
    return ""


class Host:
    """A network namespace at the end of a link, whose other end, `outer`, is in the namespace `server`."""

    def __init__(self, namespace: str, server: str, outer: str) -> None:
        self.namespace, self._server, self._outer = namespace, server, outer

    @property
    def inside(self) -> list[str]:
        """Commands that begin so run there."""
        return _in(self.namespace)

    def cut(self) -> None:
        """Take its link down: what is on the way is lost, and nobody is told."""
        _run(*_in(self._server), "ip", "link", "set", self._outer, "down")

    def mend(self) -> None:
        _run(*_in(self._server), "ip", "link", "set", self._outer, "up")

    def limit(self, kilobits: int) -> None:
        """Its uplink has so many kbit/s."""
        shaped = ("tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", f"{kilobits}kbit")
        _run(*self.inside, *shaped, "burst", "32kbit", "latency", "400ms")

    def sent(self) -> int:
        """Bytes that have left it so far."""
        return int(_run(*self.inside, "cat", "/sys/class/net/eth0/statistics/tx_bytes"))


class Network:
    """A star of links around the namespace `server`, which all `hosts` know as `ADDRESS`. All of it goes at the end;
    end first what runs in it."""

    def __init__(self) -> None:
        self._name = f"fed{uuid.uuid4().hex[:5]}"
        self.hosts: list[Host] = []
        self.server = f"{self._name}-server"

    def __enter__(self) -> "Network":
        _run("ip", "netns", "add", self.server)
        _run(*self.at_server, "ip", "link", "set", "lo", "up")
        _run(*self.at_server, "ip", "addr", "add", f"{ADDRESS}/32", "dev", "lo")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for namespace in (*(host.namespace for host in self.hosts), self.server):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)

    @property
    def at_server(self) -> list[str]:
        """Commands that begin so run on the server."""
        return _in(self.server)

    def add(self, name: str, kilobits: int | None = None) -> Host:
        """A host on a subnet of its own, whose uplink has `kilobits` kbit/s; None: no limit."""
        number = len(self.hosts) + 1
        outer, inner, subnet = f"{self._name}o{number}", f"{self._name}i{number}", f"10.77.{number}"
        host = Host(f"{self._name}-{name}", self.server, outer)
        _run("ip", "netns", "add", host.namespace)
        self.hosts.append(host)
        _run("ip", "link", "add", outer, "netns", self.server, "type", "veth", "peer", "name", inner)
        _run("ip", "link", "set", inner, "netns", host.namespace, "name", "eth0")
        _run(*self.at_server, "ip", "addr", "add", f"{subnet}.1/24", "dev", outer)
        _run(*self.at_server, "ip", "link", "set", outer, "up")
        _run(*host.inside, "ip", "link", "set", "lo", "up")
        _run(*host.inside, "ip", "addr", "add", f"{subnet}.2/24", "dev", "eth0")
        _run(*host.inside, "ip", "link", "set", "eth0", "up")
        _run(*host.inside, "ip", "route", "add", "default", "via", f"{subnet}.1")
        if kilobits is not None:
            host.limit(kilobits)
        return host
