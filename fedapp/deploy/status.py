"""scripts/deploy/status: what a SuperLink and its sites are doing, for people and for monitoring."""

import json
import math
import socket
import ssl
import time
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedapp.common.errors import FedappError
from fedapp.deploy import terminal
from fedapp.deploy.folders import Operator, read_operator
from fedapp.flower.control import RegisteredNode, connect
from fedapp.flower.registered import client_in_name, site_of
from fedapp.report.read import number, read_run

__all__ = ["SiteStatus", "Status", "judge", "main", "parser", "prometheus", "status_of"]

EXAMPLE = """Example:
  scripts/deploy/status --folder federation/operator
  scripts/deploy/status --folder federation/operator --run-dir outputs/2026-11-30/12-00-00-000000 --json
  scripts/deploy/status --folder federation/operator --prometheus 9464
Run it on the SuperLink's machine. Exit status: 0 all is well; 1 a warning (a site is away, a certificate ends within
--days, the last run failed); 2 critical (the SuperLink does not answer, no site is connected, a certificate has ended);
3 unknown (the call itself is wrong), as Nagios plug-ins have it."""
OK, WARNING, CRITICAL, UNKNOWN = range(4)
WORDS = ("ok", "warning", "critical", "unknown")
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


def judge(status: Status, days: float, now: float) -> tuple[int, list[str]]:
    """The exit status, and what it is for, each with its own level. `days`: a certificate that ends sooner is a
    warning."""
    found: list[tuple[int, str]] = []
    if not status.answers:
        found.append((CRITICAL, f"the SuperLink at {status.superlink} does not answer: {status.fault}"))
    if status.certificate_ends is not None:
        left = (status.certificate_ends - now) / 86400
        if left <= 0:
            found.append((CRITICAL, "the SuperLink's certificate has ended; scripts/deploy/provision renews it"))
        elif left < days:
            found.append((WARNING, f"the SuperLink's certificate ends in {left:.0f} days"))
    if status.answers and not any(site.connected for site in status.sites):
        found.append((CRITICAL, "no site is connected"))
    else:
        found += [(WARNING, f"{site.name} is not connected") for site in status.sites if not site.connected]
    if status.run is not None and status.run["status"] == "failed":
        found.append((WARNING, f"the run in {status.run['directory']} has failed: {status.run['reason']}"))
    return max((level for level, _ in found), default=OK), [f"{WORDS[level]}: {text}" for level, text in found]


def prometheus(status: Status, level: int) -> str:
    """Prometheus's text format, version 0.0.4. Names of sites are label values, escaped as it asks for."""
    lines: list[str] = []

    def gauge(name: str, about: str, values: Sequence[tuple[Mapping[str, str], float | None]]) -> None:
        known = [(labels, value) for labels, value in values if value is not None and not math.isnan(value)]
        if known:
            lines.extend([f"# HELP fedapp_{name} {about}", f"# TYPE fedapp_{name} gauge"])
            lines.extend(f"fedapp_{name}{_labels(labels)} {_value(value)}" for labels, value in known)

    gauge("status", "0 ok, 1 warning, 2 critical.", [({}, float(level))])
    gauge("superlink_up", "Whether the SuperLink answers.", [({}, float(status.answers))])
    gauge("certificate_end_seconds", "Unix time at which the certificate ends.", [({}, status.certificate_ends)])
    sites = [({"site": site.name}, site) for site in status.sites]
    gauge("site_connected", "Whether a site is connected.", [(at, float(site.connected)) for at, site in sites])
    gauge("site_connected_since_seconds", "Unix time of connecting.", [(at, site.since) for at, site in sites])
    gauge("site_last_round", "The last round with a good reply.", [(at, site.last_round) for at, site in sites])
    gauge("site_rejected", "Rejected replies of the run.", [(at, site.rejected) for at, site in sites])
    gauge("site_epsilon", "Privacy spent.", [(at, site.epsilon) for at, site in sites])
    if status.run is not None:
        gauge("run_round", "Rounds done in the run.", [({}, status.run["round"])])
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    def escaped(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items()) + "}" if labels else ""


def _value(value: float) -> str:
    return ("+Inf" if value > 0 else "-Inf") if math.isinf(value) else repr(float(value))


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


def show(console: Console, status: Status, said: Sequence[str]) -> None:
    ends = (
        "-" if status.certificate_ends is None else f"{datetime.fromtimestamp(status.certificate_ends, UTC):%Y-%m-%d}"
    )
    answers = "answers" if status.answers else "does not answer"
    console.print(f"SuperLink {status.superlink}: {answers}, certificate until {ends}", highlight=False, markup=False)
    if status.run is not None:
        found = status.run
        console.print(
            f"run {found['directory']}: {found['status']}, round {found['round']}", markup=False, soft_wrap=True
        )
    table = Table("site", "client", "connected since", "last round", "rejected", "ε")
    for site in status.sites:
        since = "-" if site.since is None else f"{datetime.fromtimestamp(site.since, UTC):%Y-%m-%d %H:%M:%S}Z"
        cells = (site.client, since if site.connected else "away", site.last_round, site.rejected, site.epsilon)
        table.add_row(escape(site.name), *("-" if cell is None else escape(str(cell)) for cell in cells))
    console.print(table)
    for text in said:
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def parser() -> ArgumentParser:
    made = terminal.parser(__doc__, EXAMPLE)
    made.add_argument("--folder", type=Path, required=True, help="the operator's folder, from provision")
    made.add_argument("--run-dir", type=Path, help="a run's directory: the sites' last rounds, rejections and ε")
    made.add_argument("--days", type=float, default=30.0, help="warn of a certificate that ends sooner [30]")
    made.add_argument("--json", action="store_true", help="print JSON")
    made.add_argument(
        "--prometheus", type=int, metavar="PORT", help="serve Prometheus's text at 127.0.0.1:PORT/metrics, until ended"
    )
    return made


def main(arguments: Sequence[str]) -> int:
    try:
        given = parser().parse_args(arguments)
        operator = read_operator(given.folder.absolute())
        if given.prometheus is not None:
            from fedapp.deploy.metrics_server import serve

            return serve(lambda: _text(operator, given.run_dir, given.days), given.prometheus)
        status = status_of(operator, given.run_dir)
    except SystemExit as error:  # of the parser
        return UNKNOWN if error.code else OK
    except FedappError as error:
        terminal.say(f"{WORDS[UNKNOWN]}: {error}")
        return UNKNOWN
    level, said = judge(status, given.days, time.time())
    if given.json:
        terminal.say(json.dumps({"status": WORDS[level], "said": said, **asdict(status)}))
    else:
        show(Console(), status, said)
    return level


def _text(operator: Operator, run_dir: Path | None, days: float) -> str:
    status = status_of(operator, run_dir)
    return prometheus(status, judge(status, days, time.time())[0])
