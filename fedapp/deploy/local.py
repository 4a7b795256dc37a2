"""scripts/deploy/local: a whole federation on this machine for one run, with TLS and authenticated SuperNodes."""

import shutil
import tempfile
import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from pathlib import Path

from rich.console import Console

from fedapp.aggregation.protocol import protocol_of
from fedapp.common.errors import ConfigError, DataError
from fedapp.config import compose
from fedapp.deploy import terminal
from fedapp.deploy.folders import SiteFolder, make_private_folder, read_operator, read_site, read_superlink
from fedapp.deploy.register import Register
from fedapp.deploy.run import prepare, run_prepared
from fedapp.deploy.superlink import DeployedSuperLink
from fedapp.deploy.supernode import NodeConfig, SuperNode
from fedapp.launch.guard import Guard
from fedapp.launch.local_superlink import free_port
from fedapp.privacy.limits import HELPER, is_helper
from fedapp.vertical.vertical_options import vertical_options

__all__ = ["main"]

POLL = 0.2  # seconds
LINES = 60  # of the programs' output, shown when a run failed
EXAMPLE = """Examples:
  scripts/deploy/local --supernodes 2 federation.num_rounds=3
  scripts/deploy/local --supernodes 3 --data-root sites data=csv data.label=outcome ...  # sites/site-0.csv, ...
  scripts/deploy/local --supernodes 3 --data-root parties task=vertical data=party_files ...  # parties/bank.csv, ...
Without --data-root the SuperNodes share the task's own data, as in a simulation. Everything but the results is
temporary unless --folder names a place for certificates and keys. The last line printed is run_dir=<absolute path>."""


def parser() -> ArgumentParser:
    made = terminal.parser(__doc__, EXAMPLE)
    made.add_argument("--supernodes", type=int, required=True, metavar="N", help="how many SuperNodes")
    made.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help="site k's data is DIR/site-k, a party's DIR/PARTY: a file or a folder",
    )
    made.add_argument("--folder", type=Path, help="where certificates and keys are made, and kept for the next call")
    made.add_argument("--cold", action="store_true", help="no warm workers: every message starts a new process")
    made.add_argument("overrides", nargs="*", help="key=value, as scripts/run.py takes them")
    return made


class LocalFederation:
    """A SuperLink and SuperNodes that run from provisioned folders, and keep their state and logs below `home`."""

    def __init__(self, federation: Register, configs: Sequence[NodeConfig], home: Path, *, warm: bool = True) -> None:
        self._log = home / "federation.log"
        self._superlink = DeployedSuperLink(
            read_superlink(federation.root / "superlink"),
            make_private_folder(home / "superlink"),
            "127.0.0.1",
            self._say("superlink"),
        )
        peers = _public_keys(federation, home / "peers", federation.participants)
        named = zip(federation.participants, configs, strict=True)
        of_helpers = [name for name, config in named if is_helper(config)]
        helpers = _public_keys(federation, home / "helpers", of_helpers) if of_helpers else None
        self._supernodes = [
            SuperNode(
                site := read_site(federation.root / name),
                make_private_folder(home / name),
                _with_own_files(config, site, home / name, peers, helpers),
                warm=warm,
                say=self._say(name),
            )
            for name, config in zip(federation.participants, configs, strict=True)
        ]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tend, daemon=True)

    def _say(self, who: str) -> Callable[[str], None]:
        def say(line: str) -> None:
            with self._log.open("a", encoding="utf-8") as log:
                log.write(f"{who}: {line}\n")

        return say

    def start(self) -> None:
        self._superlink.start()
        for supernode in self._supernodes:
            supernode.start()
        self._thread.start()

    def _tend(self) -> None:
        while not self._over.wait(POLL):
            for supernode in self._supernodes:
                supernode.tend()

    def tail(self) -> str:
        """The last that its programs printed."""
        return "\n".join(self._log.read_text(encoding="utf-8").splitlines()[-LINES:])

    def stop(self) -> None:
        """End what runs in this process; the guard of `home` ends the programs."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        self._superlink.close()


def _public_keys(federation: Register, folder: Path, names: Iterable[str]) -> Path:
    """A folder with the public keys of these sites."""
    make_private_folder(folder)
    for name in names:
        shutil.copy(federation.root / name / f"{name}.pub", folder)
    return folder


def _with_own_files(config: NodeConfig, site: SiteFolder, home: Path, peers: Path, helpers: Path | None) -> NodeConfig:
    """With the site's key and, where it has data of its own, a folder for what it stores, as scripts/deploy/supernode
    has them; parties and helper sites also with the others' keys (`peers`), clients with those of `helpers`."""
    own = {"signing-key": str(site.key.absolute())}
    of_helper = is_helper(config)
    own |= {"peers": str(peers)} if "party" in config or of_helper else {}
    own |= {"helper": str(helpers)} if helpers is not None and not of_helper else {}
    return {**config, **own, **({"keep-path": str(home / "keep")} if "data-path" in config or of_helper else {})}


def site_data(root: Path, name: str) -> Path:
    """The file or folder `name` or `name.*` below `root`. Raises DataError unless there is just one."""
    found = [path for path in sorted(root.glob(f"{name}*")) if name in (path.name, path.name.partition(".")[0])]
    if len(found) != 1:
        there = ", ".join(path.name for path in found) or "none"
        raise DataError(f"--data-root {root}: must hold one {name} or {name}.*, a site's data; it holds {there}")
    return found[0].absolute()


def party_names(overrides: Sequence[str]) -> tuple[str, ...]:
    """The parties of a task in which each has other columns; none in any other."""
    config = compose(overrides)
    return vertical_options(config).names if config.task.by_columns else ()


def helper_sites(overrides: Sequence[str], given: Namespace) -> int:
    """How many helper sites the run needs beside its SuperNodes. Raises ConfigError where they would know the key of no
    client, since a SuperNode hosts several."""
    config = compose(overrides)
    found, clients = protocol_of(config).helper_sites, config.federation.num_clients
    if found and given.data_root is None and clients != given.supernodes:
        raise ConfigError(
            f"federation.num_clients={clients}: for sums through a helper each of the {given.supernodes} SuperNodes"
            f" signs for one client; set it to {given.supernodes}"
        )
    return found


def node_configs(
    given: Namespace, parties: Sequence[str] = (), helpers: int = 0
) -> list[dict[str, bool | int | float | str]]:
    """What each SuperNode tells its ClientApps; SuperNode k is party k, where there are any. As many more as `helpers`
    are helper sites. Raises FedappError."""
    if given.supernodes < 1:
        raise ConfigError(f"--supernodes {given.supernodes}: must be at least 1")
    if parties and given.data_root is not None and len(parties) != given.supernodes:
        raise ConfigError(f"--supernodes {given.supernodes}: the task has {len(parties)} parties: {', '.join(parties)}")
    configs: list[dict[str, bool | int | float | str]] = []
    for k in range(given.supernodes):
        config: dict[str, bool | int | float | str] = {"site-name": f"site-{k}", "partition-id": k}
        if given.data_root is None:
            config["num-partitions"] = given.supernodes + helpers
        else:
            config["data-path"] = str(site_data(given.data_root, parties[k] if parties else f"site-{k}"))
            config |= {"party": parties[k]} if parties else {}
        configs.append(config)
    configs += [{"site-name": f"site-{given.supernodes + k}", "role": HELPER} for k in range(helpers)]
    return configs


def provisioned(root: Path, count: int) -> Register:
    """A federation of `count` sites under `root`. Raises ConfigError where `root` holds one of other sites."""
    federation = Register.load(root)
    if not federation.exists:
        federation.port, federation.control_port = free_port(), free_port()
    federation.set_up(["127.0.0.1"], timedelta(days=30))
    for k in range(count):
        federation.add(f"site-{k}")
    if len(federation.participants) != count:
        raise ConfigError(f"--folder {root}: has {len(federation.participants)} sites, this run needs {count}")
    return federation


def main(arguments: Sequence[str]) -> int:
    given = parser().parse_intermixed_args(arguments)
    overrides = given.overrides
    configs = node_configs(given, parties := party_names(overrides), helper_sites(overrides, given))
    if not parties and not any(item.startswith("federation.min_supernodes=") for item in overrides):
        overrides = [*overrides, f"federation.min_supernodes={given.supernodes}"]  # none is left out for being slow
    prepared = prepare(overrides)
    home = Path(tempfile.mkdtemp(prefix="fedapp-local-"))
    guard = Guard(home)
    try:
        root = given.folder.absolute() if given.folder is not None else make_private_folder(home / "federation")
        federation = LocalFederation(provisioned(root, len(configs)), configs, home, warm=not given.cold)
        try:
            federation.start()
            operator = read_operator(root / "operator")
            run = run_prepared(Console(), operator, make_private_folder(home / "operator"), prepared)
            if run.error is not None:
                terminal.say(federation.tail())
        finally:
            federation.stop()
    finally:
        terminal.ignore_signals()  # what remains is clearing up, which must not be cut short
        guard.end()
    terminal.say(f"run_dir={run.directory}")
    return int(run.error is not None)
