"""This SuperNode's side of a vertical run: which parties it hosts, their tables, and where their parts are kept."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from flwr.app import Context

from fedapp.client.build import only_own_paths
from fedapp.client.own_work import use_threads
from fedapp.client.storage import Folder, storage_folder
from fedapp.common.code_digest import code_digest
from fedapp.common.device_keys import Identity, Peers, read_identity, read_peers
from fedapp.common.errors import ConfigError, DataError, ModelError, NodeConfigError
from fedapp.common.run_paths import run_directory
from fedapp.config import Config, compose, maths_sha256, split_overrides
from fedapp.data.party_table import PartyTable
from fedapp.data.shards import data_version, hosted_clients, local_data_path
from fedapp.privacy.limits import OwnLimits, own_limits, whole_limit
from fedapp.vertical.saved_part import SavedPart, load_part
from fedapp.vertical.vertical_options import VerticalOptions, vertical_options

__all__ = ["PartyRun", "hosted_parties", "open_party_run", "party_run"]

log = logging.getLogger("flwr")

NodeConfig = Mapping[str, bool | int | float | str]
MOST_LABEL_EPSILON = 8.0  # over all runs, unless the operator says otherwise (max-label-epsilon)
MOST_IDENTITIES = 2_000_000  # unless the operator says otherwise (max-identities): hashing them takes minutes


@dataclass(frozen=True)
class PartyRun:
    """`digest`: of what is computed, and by which code. `path` and `key`: a device's own file and id-column. `folder`:
    where it keeps its part. `given_new`: its new rows, where parts that were kept predict them. `most`: how many
    identities it blinds, or raises for others.
    `most_label_epsilon`: what labels may ever cost; None in a simulation."""

    config: Config
    options: VerticalOptions
    limits: OwnLimits
    digest: str
    path: Path | None
    key: str
    folder: Folder | None
    identity: Identity | None
    peers: Peers | None
    most: int
    most_label_epsilon: float | None = None
    given_new: Path | None = None
    _tables: dict[str, PartyTable] = field(default_factory=dict)
    _parts: dict[str, SavedPart] = field(default_factory=dict)
    _numbers: dict[str, list[int]] = field(default_factory=dict)

    @property
    def on_device(self) -> bool:
        return self.path is not None

    def table(self, party: str) -> PartyTable:
        """Raises FedappError where the data does not fit."""
        if party not in self._tables and self.predicts:
            reading = self.part(party).about.reading
            if reading is None:
                raise DataError("predict-path: the data of this run has no form in which new rows lie in files")
            self._tables[party], self._numbers[party] = reading.read(self.new_file, party)
        if party not in self._tables:
            source, labels = self.options.source, self.options.label_party
            found = (
                source.table(party, labels)
                if self.path is None
                else source.local_table(self.path, party, labels, self.key)
            )
            self._tables[party] = found
        return self._tables[party]

    @property
    def predicts(self) -> str:
        """The run whose parts predict new rows; "" where parts are trained."""
        return self.config.vertical.predict or ""

    @property
    def new_file(self) -> Path:
        """Raises NodeConfigError where the operator has named none."""
        if self.given_new is None:
            raise NodeConfigError(
                "predict-path: the file of new rows; without it this SuperNode takes no part in predictions"
            )
        return self.given_new

    def numbers(self, party: str) -> list[int]:
        """By new row, its number in a spreadsheet."""
        self.table(party)
        return self._numbers[party]

    def part(self, party: str) -> SavedPart:
        """What this party has kept of the run that predicts. Raises FedappError where it has kept none, or the config
        is of another run."""
        if party not in self._parts:
            folder = self.kept(party, self.predicts)
            assert folder is not None
            try:
                found = load_part(folder)
            except ModelError as error:
                raise NodeConfigError(f"keep-path: {error}") from None
            self._check_same(found, party)
            self._parts[party] = found
        return self._parts[party]

    def _check_same(self, part: SavedPart, party: str) -> None:
        about, vertical = part.about, self.config.vertical
        same = {
            "party": about.party == party,
            "data.parties": about.parties == self.options.names,
            "vertical.label_party": about.label_party == self.options.label_party,
            "vertical.embedding": about.embedding == vertical.embedding,
            "vertical.fusion": about.fusion == vertical.fusion,
            "vertical.normalise": about.normalise == vertical.normalise,
            "vertical.unmatched": about.unmatched == vertical.unmatched,
        }
        if other := [key for key, agrees in same.items() if not agrees]:
            raise ConfigError(
                f"vertical.predict={self.predicts}: {', '.join(other)}: not as in that run; give the overrides that it"
                " was trained with"
            )

    @property
    def ledger_folder(self) -> Path | None:
        """Where the label party keeps its account over all runs; in a simulation over this one."""
        return self.folder.path if self.folder is not None else self.kept(self.options.label_party, "")

    def kept(self, party: str, run: str) -> Path | None:
        """The folder of a party's part of a run; None where nothing is kept, as the run directory is not known."""
        if self.folder is not None:
            return self.folder.path / "vertical" / run
        given = self.config.run
        known = run_directory(given.resume) or (Path(given.output_dir) if given.output_dir else None)
        return known / "parties" / party if known is not None and not self.on_device else None


def open_party_run(context: Context) -> PartyRun:
    """Raises FedappError for a config or a node-config that cannot work."""
    run = party_run(str(context.run_config["overrides"]), context.node_config)
    use_threads(run.config.run.threads_per_client, on_device=run.on_device)
    return run


def party_run(overrides: str, node_config: NodeConfig) -> PartyRun:
    """The run of these settings on a SuperNode with this node-config. Raises FedappError."""
    if "data-path" not in node_config:  # a simulation's, of which no file can change while it runs
        return _simulated(overrides, tuple(sorted(node_config.items())))
    return _opened(overrides, node_config)


@lru_cache(maxsize=8)
def _simulated(overrides: str, items: tuple[tuple[str, bool | int | float | str], ...]) -> PartyRun:
    return _opened(overrides, dict(items))


def _opened(overrides: str, node_config: NodeConfig) -> PartyRun:
    limits, path = own_limits(node_config), local_data_path(node_config)
    new = node_config.get("predict-path")
    if new is not None and not (isinstance(new, str) and new):
        raise NodeConfigError(f"node-config predict-path={new!r}: must be a path in quotes")
    given_new = Path(str(new)).expanduser() if new else None
    versions = tuple(data_version(file) for file in (path, limits.signing_key, limits.peers, given_new))
    key, most = str(node_config.get("id-column", "")), whole_limit(node_config, "max-identities", 1) or MOST_IDENTITIES
    run = _run(overrides, path, key, limits, storage_folder(node_config), most, versions)
    labels = _most_label_epsilon(node_config) if run.on_device else None
    return replace(run, most_label_epsilon=labels, given_new=given_new)


def _most_label_epsilon(node_config: NodeConfig) -> float:
    given = node_config.get("max-label-epsilon", MOST_LABEL_EPSILON)
    if isinstance(given, bool) or not isinstance(given, int | float) or not given > 0:
        raise NodeConfigError(f"node-config max-label-epsilon={given}: must be a number greater than 0")
    return float(given)


@lru_cache(maxsize=4)
def _run(
    overrides: str,
    path: Path | None,
    key: str,
    limits: OwnLimits,
    folder: Folder | None,
    most: int,
    versions: tuple[str, ...],
) -> PartyRun:
    config = compose(split_overrides(overrides))
    digest = f"{maths_sha256(config)}{code_digest()}"
    if path is not None:
        _check_device(limits, folder)
        config = only_own_paths(config, limits)
    if limits.keys:
        raise ConfigError(
            f"privacy: this SuperNode's operator asks for differential privacy ({', '.join(limits.keys)}), which"
            " task=vertical does not have"
        )
    if config.vertical.predict and path is None:
        raise ConfigError(
            "vertical.predict: is for parties on devices; in a simulation use python scripts/predict.py RUN PARTY=FILE"
        )
    options = vertical_options(config)
    identity = read_identity(limits.signing_key) if limits.signing_key is not None else None
    peers = read_peers(limits.peers) if limits.peers is not None else None
    return PartyRun(config, options, limits, digest, path, key, folder, identity, peers, most)


def _check_device(limits: OwnLimits, folder: Folder | None) -> None:
    """What a device must have for vertical learning, whatever the config says."""
    if limits.peers is None or limits.signing_key is None:
        raise ConfigError(
            "peers, signing-key: a party on a device seals what it sends to the others' keys, and must know them: its"
            " node-config needs the folder of their public keys and its own key"
        )
    if folder is None:
        raise ConfigError("keep-path: a party keeps its part of the model, so its node-config must name a folder")


def hosted_parties(node_config: NodeConfig, node_id: int, names: tuple[str, ...]) -> dict[str, int]:
    """By name of each party that lives on this SuperNode, its client's number. Raises FedappError."""
    if "data-path" not in node_config:
        return {names[client]: client for client in hosted_clients(node_config, node_id, len(names))}
    party = node_config.get("party")
    if party not in names:
        raise NodeConfigError(f"node-config party={party}: must be one of the run's parties, {', '.join(names)}")
    return {str(party): hosted_clients(node_config, node_id, 0)[0]}
