"""What a SuperLink and its sites are doing: asked of the SuperLink, and read from a run directory."""

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from fedapp.deploy.folders import Operator
from fedapp.flower.control import RegisteredNode, connect
from fedapp.flower.registered import client_in_name, site_of
from fedapp.report.read import number, read_run

__all__ = ["SiteStatus", "Status", "status_of"]

PATIENCE = 10.0  # seconds


@dataclass(frozen=True)
class SiteStatus:
    """`since`: Unix seconds at which it connected last, None where it is not connected. `last_round`, `rejected` and
    `epsilon` are of the run that was named, None where it has none."""

    name: str
    client: int | None
    connected: bool
    since: float | None
    last_round: int | None = None
    rejected: int | None = None
    epsilon: float | None = None


@dataclass(frozen=True)
class Status:
    """`certificate_ends`: Unix seconds. `run`: of the run that was named: its directory, status, round, and the
    versions that its server had."""

    superlink: str
    answers: bool
    fault: str
    certificate_ends: float | None
    sites: tuple[SiteStatus, ...]
    run: Mapping[str, Any] | None = None


def status_of(operator: Operator, run_dir: Path | None = None) -> Status:
    """Ask the SuperLink; what it does not say is in the run directory. Raises FedappError for a wrong `run_dir`."""
    run, of_sites = _run(run_dir)
    try:
        ends = _certificate_ends(operator)
        with connect(operator.control, operator.authority.read_bytes()) as control:
            nodes = control.nodes()
    except Exception as error:  # of sockets, TLS and Flower's interface alike: it does not answer
        said = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        return Status(operator.control, False, said, None, (), run)
    sites = sorted((_site(node, of_sites) for node in nodes if not node.revoked), key=lambda site: site.name)
    return Status(operator.control, True, "", ends, tuple(sites), run)


def _site(node: RegisteredNode, of_sites: Mapping[int, Mapping[str, Any]]) -> SiteStatus:
    client = client_in_name(node.name)
    known = of_sites.get(-1 if client is None else client, {})
    since = _seconds(node.activated) if node.online else None
    return SiteStatus(site_of(node.name), client, node.online, since, **known)


def _seconds(text: str) -> float | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _certificate_ends(operator: Operator) -> float:
    """Of the certificate that the SuperLink shows; one that has ended or is a stranger's fails the connection."""
    host, _, port = operator.control.rpartition(":")
    context = ssl.create_default_context(cafile=str(operator.authority))
    with (
        socket.create_connection((host, int(port)), timeout=PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        shown = secure.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).not_valid_after_utc.timestamp()


def _run(run_dir: Path | None) -> tuple[Mapping[str, Any] | None, Mapping[int, Mapping[str, Any]]]:
    """What a run directory says of its run, and by client of each site."""
    if run_dir is None:
        return None, {}
    data = read_run(run_dir)
    sites: dict[int, dict[str, Any]] = {}
    for line in (*data.clients, *data.final):
        if type(client := line.get("client")) is not int:
            continue
        site = sites.setdefault(client, {"last_round": None, "rejected": 0, "epsilon": None})
        if line.get("rejected"):
            site["rejected"] += 1
        else:
            site["last_round"] = line["round"]
        if (epsilon := number(line.get("epsilon"))) is not None:
            site["epsilon"] = max(epsilon, site["epsilon"] or 0.0)
    run = {
        "directory": str(data.path),
        "status": str(data.summary.get("status") or "unfinished"),
        "reason": str(data.summary.get("stop_reason") or ""),
        "round": data.rounds[-1]["round"] if data.rounds else None,
        "versions": data.summary.get("versions"),
    }
    return run, sites
