"""scripts/deploy/supernode: a SuperNode beside its data: the data is checked first, limits are the site's own."""

import os
import time
import tomllib
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fedapp.common.device_keys import read_helpers, read_identity, read_peers
from fedapp.common.errors import ConfigError
from fedapp.deploy import terminal
from fedapp.deploy.diagnosis import why_refused
from fedapp.deploy.folders import SiteFolder, make_private_folder, read_site, write_toml
from fedapp.deploy.only_one import only_one
from fedapp.deploy.program import Program
from fedapp.deploy.workers import Workers
from fedapp.flower.upload_pieces import PIECES
from fedapp.launch.guard import Guard
from fedapp.launch.local_superlink import flower_environment, free_port
from fedapp.privacy.limits import HELPER, own_limits

__all__ = ["SuperNode", "main", "node_config"]

NodeConfig = Mapping[str, bool | int | float | str]
POLL = 0.2  # seconds
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 30.0  # seconds before another try
STEADY = 60.0  # seconds after which a SuperNode counts as having got in
EXAMPLE = """Examples:
  scripts/deploy/supernode --folder site-A --data /srv/patients.csv --task "data=csv data.label=outcome ..."
  scripts/deploy/supernode --folder notary --role helper --peers peers --min-cohort 3
With --ledger or --max-epsilon it takes part in runs under differential privacy only. Whatever a server asks for,
--max-epsilon and --max-seconds hold. It runs until it is ended, and tries again when the SuperLink is away."""


class SuperNode:
    """A SuperNode that is started again, after a pause, whenever it ends by itself."""

    def __init__(
        self,
        site: SiteFolder,
        state: Path,
        config: NodeConfig,
        *,
        trusted: Path | None = None,
        warm: bool = True,
        say: Callable[[str], None],
    ) -> None:
        self._site, self._state, self._trusted, self._say = site, state, trusted, say
        self._program: Program | None = None
        environment = {**PIECES, **flower_environment(state)}
        self._workers = Workers(state, environment, say) if warm else None
        self._environment = self._workers.environment if self._workers is not None else environment
        self._pause, self._started, self._due = FIRST_PAUSE, 0.0, 0.0
        self._config = state / "node-config.toml"  # in a file, which other users cannot read as they can a command line
        write_toml(self._config, "What this SuperNode's operator decides", dict(config))

    def start(self) -> None:
        site = self._site
        command = ["flower-supernode", "--superlink", site.superlink, "--root-certificates", str(site.authority)]
        command += ["--auth-supernode-private-key", str(site.key), "--isolation", "subprocess"]
        command += ["--host", "127.0.0.1", "--port", str(free_port()), "--node-config", str(self._config)]
        command += ["--trusted-entities", str(self._trusted)] if self._trusted is not None else []
        self._started = time.monotonic()
        self._program = Program(command, home=self._state, environment=self._environment, say=self._say)

    def tend(self) -> None:
        """To be called often: says why it ended, if it did, and starts it again when the pause is over."""
        now = time.monotonic()
        if self._workers is not None:
            self._workers.tend()
        if self._program is None:
            if now >= self._due:
                self.start()
            return
        if (status := self._program.ended()) is None:
            return
        self._pause = FIRST_PAUSE if now - self._started > STEADY else min(2 * self._pause, LONGEST_PAUSE)
        reason = why_refused(self._site.superlink, self._site.authority, self._program.lines)
        self._due, self._program = now + self._pause, None
        self._say(f"{self._site.name}: SuperNode ended ({status}): {reason}. Trying again in {self._pause:.0f} s")

    def stop(self) -> None:
        if self._program is not None:
            self._program.stop()
        if self._workers is not None:
            self._workers.stop()


def node_config(given: Namespace, site: SiteFolder) -> dict[str, bool | int | float | str]:
    """What this SuperNode tells its ClientApps. Raises ConfigError for options that cannot be."""
    found: dict[str, bool | int | float | str] = {"site-name": site.name}
    for item in given.node_config:
        try:
            found |= tomllib.loads(item)
        except tomllib.TOMLDecodeError:
            raise ConfigError(
                f"--node-config {item}: must be KEY=VALUE, text in double quotes: KEY='\"text\"'"
            ) from None
    if given.data is not None and given.role is not None:
        raise ConfigError(f"--role {given.role}: has no data of its own; leave --data out")
    if given.data is not None:
        data = given.data.expanduser().absolute()
        if not data.exists():
            raise ConfigError(f"--data {data}: no such file or folder")
        keep = given.keep.expanduser().absolute() if given.keep is not None else site.folder / "keep"
        found |= {"data-path": str(data), "partition-id": site.client, "keep-path": str(keep)}
    elif given.role is not None:
        keep = given.keep.expanduser().absolute() if given.keep is not None else site.folder / "keep"
        found |= {"role": given.role, "keep-path": str(keep)}
    elif not {"partition-id", "num-partitions"} <= found.keys():
        raise ConfigError(
            "--data: name this site's data; or, for a demonstration with the task's own data, give"
            " --node-config partition-id=0 num-partitions=2"
        )
    found.setdefault("signing-key", str(site.key.absolute()))  # for the keys of secure aggregation
    if given.peers is not None:
        found["peers"] = str(given.peers.expanduser().absolute())
        if given.role is None:
            _check_pins(Path(str(found["peers"])), site)
        else:
            read_peers(Path(str(found["peers"])))
    if given.helper is not None:
        found["helper"] = str(given.helper.expanduser().absolute())
        read_helpers(Path(str(found["helper"])))
    if given.weights is not None:
        if not given.weights.is_dir():
            raise ConfigError(f"--weights {given.weights}: no such folder")
        found["weights-dir"] = str(given.weights.expanduser().absolute())
    if given.ledger is not None:
        if not given.ledger.expanduser().absolute().parent.is_dir():
            raise ConfigError(
                f"--ledger {given.ledger}: its folder is not there. If it is lost, put it back from its newest copy;"
                " make it for a site that has spent nothing yet"
            )
        found["ledger-path"] = str(given.ledger.expanduser().absolute())
    for option in (
        "max_epsilon",
        "max_seconds",
        "max_steps",
        "max_model_mb",
        "max_disk_mb",
        "min_cohort",
        "honest_share",
    ):
        if (value := getattr(given, option)) is not None:
            found[option.replace("_", "-")] = value
    return found


def _check_pins(folder: Path, site: SiteFolder) -> None:
    """Raises ConfigError for pinned keys that are none, or among which this site's own is bound to another client."""
    pinned = read_peers(folder).keys.get(site.client)
    if pinned is not None and pinned != read_identity(site.key).public:
        raise ConfigError(
            f"--peers {folder}: holds another key for client {site.client}, which is this site: put {site.name}.pub"
            " from this site's own folder there"
        )
    if pinned is None:
        raise ConfigError(f"--peers {folder}: lacks this site's own key, {site.name}.pub in its own folder")


def in_a_child(check: Callable[[], int]) -> int:
    """`check`, in a process of its own that takes the memory for data and PyTorch with it when it ends."""
    child = os.fork()
    if not child:
        status = 1
        try:
            status = terminal.run_command(lambda _: check(), ())
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def parser() -> ArgumentParser:
    made = terminal.parser(__doc__, EXAMPLE)
    made.add_argument("--folder", type=Path, required=True, help="this site's start-up folder, from provision")
    made.add_argument("--data", type=Path, help="this site's data: a file or a folder, as the task has it")
    made.add_argument("--task", metavar="OVERRIDES", help="check the data against this task before connecting")
    made.add_argument("--ledger", type=Path, help="the file in which what was spent of the privacy budget is kept")
    made.add_argument("--max-epsilon", type=float, help="the most that may ever be spent of it (8)")
    made.add_argument("--honest-share", type=float, help="how many of the others a run may take to be honest (0.9)")
    made.add_argument("--max-seconds", type=float, help="a training ends after this time, with what it has")
    made.add_argument("--max-steps", type=int, help="refuse runs in which a training takes more steps in a round")
    made.add_argument("--max-model-mb", type=int, help="refuse runs whose model is larger")
    made.add_argument("--max-disk-mb", type=int, help="the most that --keep may fill, with features, heads and results")
    made.add_argument(
        "--min-cohort", type=int, help="secure aggregation only, and no smaller sum; needs --peers or --helper"
    )
    made.add_argument(
        "--peers", type=Path, metavar="FOLDER", help="only with devices whose public keys (*.pub) are there"
    )
    made.add_argument(
        "--helper", type=Path, metavar="FILE", help="sums through this helper only: its public key (*.pub)"
    )
    made.add_argument("--role", choices=[HELPER], help="no client, but a helper site for secure sums; needs --peers")
    made.add_argument("--trusted-entities", type=Path, metavar="FILE", help="take only apps that these signed")
    made.add_argument("--keep", type=Path, help="where features, heads and results are kept (<folder>/keep)")
    made.add_argument("--weights", type=Path, metavar="FOLDER", help="where files of pretrained weights are taken from")
    made.add_argument("--cold", action="store_true", help="no process kept ready: less memory, seconds more a message")
    made.add_argument("--node-config", nargs="+", default=[], metavar="KEY=VALUE", help="more of it, for the ClientApp")
    return made


def main(arguments: Sequence[str]) -> int:
    given = parser().parse_args(arguments)
    site = read_site(given.folder.absolute())
    config = node_config(given, site)
    trusted = given.trusted_entities
    if trusted is not None and not trusted.is_file():
        raise ConfigError(f"--trusted-entities {trusted}: no such file; scripts/deploy/sign makes one")

    own_limits(config)

    def check() -> int:
        from fedapp.deploy.check_data import check_site  # PyTorch takes 2 s to import

        terminal.say(check_site(config, given.task))
        return 0

    if given.task is not None and (status := in_a_child(check)):
        return status
    state = make_private_folder(site.folder / "state")
    with only_one(state, "SuperNode"):
        guard = Guard(state, keep=True)
        trusted = trusted.absolute() if trusted is not None else None
        supernode = SuperNode(site, state, config, trusted=trusted, warm=not given.cold, say=terminal.say)
        try:
            supernode.start()
            while True:
                time.sleep(POLL)
                supernode.tend()
        finally:
            terminal.ignore_signals()  # what remains is clearing up, which must not be cut short
            supernode.stop()
            guard.end()
