"""scripts/deploy/status: what a SuperLink and its sites are doing, for people and for monitoring."""

import json
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedapp.common.errors import FedappError
from fedapp.deploy import terminal
from fedapp.deploy.federation_status import Status, status_of
from fedapp.deploy.folders import Operator, read_operator
from fedapp.deploy.prometheus_text import prometheus

__all__ = ["judge", "main", "parser"]

EXAMPLE = """Example:
  scripts/deploy/status --folder federation/operator
  scripts/deploy/status --folder federation/operator --run-dir outputs/2026-11-30/12-00-00-000000 --json
  scripts/deploy/status --folder federation/operator --prometheus 9464
Run it on the SuperLink's machine. Exit status: 0 all is well; 1 a warning (a site is away, a certificate ends within
--days, the last run failed); 2 critical (the SuperLink does not answer, no site is connected, a certificate has ended);
3 unknown (the call itself is wrong), as Nagios plug-ins have it."""
OK, WARNING, CRITICAL, UNKNOWN = range(4)
WORDS = ("ok", "warning", "critical", "unknown")


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
