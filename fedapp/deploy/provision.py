"""scripts/deploy/provision: certificates, keys and start-up folders for a federation."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fedapp.common.errors import ConfigError
from fedapp.deploy import terminal
from fedapp.deploy.folders import AUTHORITY
from fedapp.deploy.identity import expiry
from fedapp.deploy.register import Register

__all__ = ["main", "provision"]

EXAMPLE = """Examples:
  scripts/deploy/provision federation --host superlink.example.org --site site-A site-B site-C
  scripts/deploy/provision federation                       # who is there, and until when the certificate is valid
  scripts/deploy/provision federation --site site-D         # one more
  scripts/deploy/provision federation --renew superlink     # a new certificate; or a site's name: a new key
  scripts/deploy/provision federation --revoke site-B
Nothing that is there is overwritten without --renew."""


def parser() -> ArgumentParser:
    made = terminal.parser(__doc__, EXAMPLE)
    made.add_argument("folder", type=Path, help="where the federation's folders are, or shall be")
    made.add_argument(
        "--host", nargs="+", default=[], help="the SuperLink's names and addresses; SuperNodes use the first"
    )
    made.add_argument("--site", nargs="+", default=[], help="names of SuperNodes to add")
    made.add_argument("--port", type=int, help="where SuperNodes connect (8443)")
    made.add_argument("--control-port", type=int, help="where runs are started, on the SuperLink's machine only (8444)")
    made.add_argument("--days", type=int, default=365, help="how long a new certificate is valid (365)")
    made.add_argument("--renew", metavar="NAME", help="superlink: a new key and certificate; a site: a new key")
    made.add_argument("--revoke", metavar="SITE", help="a site whose key shall count no more")
    return made


def main(arguments: Sequence[str]) -> int:
    given = parser().parse_args(arguments)
    federation = provision(given)
    show(Console(), federation)
    for line in federation.todo:
        print(f"TO DO: {line}", flush=True)
    return int(federation.undone)


def provision(given: Namespace) -> Register:
    """Do what the command line asks for. Raises ConfigError before anything is written if it cannot be done."""
    federation = Register.load(given.folder)
    if given.days < 1:
        raise ConfigError(f"--days {given.days}: must be at least 1")
    for option in ("port", "control_port"):
        wanted, name = getattr(given, option), f"--{option.replace('_', '-')}"
        if wanted is None:
            continue
        if not 0 < wanted < 2**16:
            raise ConfigError(f"{name} {wanted}: must lie in 1..65535")
        if federation.exists and wanted != getattr(federation, option):
            raise ConfigError(
                f"{name} {wanted}: this federation has {getattr(federation, option)}, and every site knows it; begin a"
                " new folder for another"
            )
        setattr(federation, option, wanted)
    if federation.port == federation.control_port:
        raise ConfigError(f"--control-port {federation.control_port}: must differ from --port")
    lifetime = timedelta(days=given.days)
    renews_server = given.renew == "superlink"
    for name in given.site:
        federation.check_name(name)
    federation.set_up([] if renews_server and federation.exists else given.host, lifetime)
    for name in given.site:
        federation.add(name)
    if renews_server:
        federation.renew_server(lifetime, given.host)
    elif given.renew:
        federation.renew(given.renew)
    if given.revoke:
        federation.revoke(given.revoke)
    return federation


def show(console: Console, federation: Register) -> None:
    """Who is there, and until when which certificate is valid."""
    table = Table("participant", "client", "identity", box=None, padding=(0, 2, 0, 0))
    for name, certificate in (("ca", "ca/" + AUTHORITY), ("superlink", "superlink/server.crt")):
        table.add_row(name, "-", _validity(federation.root / certificate))
    table.add_row("operator", "-", "none; works on the SuperLink's machine")
    for name, site in federation.participants.items():
        table.add_row(name, str(site.client), "revoked" if site.revoked else "key counts")
    console.print(f"Folders of participants in {federation.root.absolute()}:", soft_wrap=True, highlight=False)
    console.print(table)
    console.print(
        "The ca folder stays here, in a safe place; each other folder goes to its participant.", highlight=False
    )


def _validity(certificate: Path) -> str:
    if not certificate.exists():
        return "certificate has been moved"
    until = expiry(certificate)
    left = (until - datetime.now(UTC)).days
    return f"certificate until {until:%Y-%m-%d} ({left} days)" if left >= 0 else f"certificate EXPIRED {until:%Y-%m-%d}"
