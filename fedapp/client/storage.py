"""Storage of a SuperNode's clients between messages: ledgers, personal heads, features, and the run's result.

A device has a folder of its own for it, named by its operator (`keep-path` in the node-config), and its ledger has a
file of its own (`ledger-path`). In a simulation it lies in the run directory; where that is not known, it lasts as long
as the run. Nothing of it is ever sent.
"""

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from flwr.app import Context
from torch import Tensor

from fedapp.client.client_storage import ClientStorage
from fedapp.client.heads import FolderHead, Heads, StateHead
from fedapp.client.received_models import KEPT as MODELS_KEPT
from fedapp.client.received_models import FolderModels, ModelStore, StateModels
from fedapp.client.run_folders import RunFolders
from fedapp.client.site import Site
from fedapp.client.step_states import StepStates
from fedapp.common.errors import ConfigError, NodeConfigError
from fedapp.common.files import write_atomically
from fedapp.common.run_paths import KEPT, run_directory
from fedapp.common.tensor_file import tensor_file
from fedapp.config import Config, to_yaml
from fedapp.data.shards import local_data_path
from fedapp.learning.build import bytes_of
from fedapp.models.shared_state import shared_state
from fedapp.privacy.ledger import FileLedger, StateLedger
from fedapp.privacy.limits import is_helper, own_limits, whole_limit
from fedapp.privacy.protection import Account

__all__ = [
    "Folder",
    "check_disk",
    "check_resumable",
    "device_ledger",
    "kept_states",
    "open_account",
    "open_received",
    "open_storage",
    "simulated_run_directory",
    "storage_folder",
    "store_result",
]

log = logging.getLogger("flwr")

NodeConfig = Mapping[str, bool | int | float | str]
FEATURES_MB = 1024
RECEIVED = "received"  # the folder of models that came
OVERHEAD, CONFIG_BYTES = 256, 1 << 16  # of a tensor in a file: its name and form; of a config.yaml


@dataclass(frozen=True)
class Folder:
    """A device's own folder, and how many bytes of it features and what is stored of runs may fill."""

    path: Path
    feature_bytes: int = FEATURES_MB << 20
    run_bytes: int | None = None

    @property
    def runs(self) -> RunFolders:
        return RunFolders(self.path, self.run_bytes)


def storage_folder(node_config: NodeConfig) -> Folder | None:
    """None where the operator named no folder. Of `max-disk-mb` features get half at most, runs the rest. Raises
    NodeConfigError for what is none."""
    given, size = node_config.get("keep-path"), node_config.get("features-mb", FEATURES_MB)
    if given is None:
        for key in ("features-mb", "max-disk-mb"):
            if key in node_config:
                raise NodeConfigError(f"node-config {key}: has an effect together with keep-path only")
        return None
    if "data-path" not in node_config and not is_helper(node_config):
        raise NodeConfigError("node-config keep-path: is for a device with data of its own (data-path)")
    if not isinstance(given, str) or not Path(given).expanduser().is_absolute():
        raise NodeConfigError(f"node-config keep-path={given}: must be an absolute path")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise NodeConfigError(f"node-config features-mb={size}: must be a whole number, 0 or more")
    feature_bytes, run_bytes = size << 20, None
    if (most := whole_limit(node_config, "max-disk-mb", 1)) is not None:
        feature_bytes = min(feature_bytes, most << 19)
        run_bytes = (most << 20) - feature_bytes
    return Folder(Path(given).expanduser(), feature_bytes, run_bytes)


def check_disk(context: Context, config: Config, site: Site) -> None:
    """Raises ConfigError for a run that would store more in a device's folder than its operator allows."""
    if (folder := storage_folder(context.node_config)) is not None:
        needed = _head_bytes(config, site) + (_step_bytes(config, site) if site.steps.keeps_state else 0)
        needed += _received_bytes(site) if site.codec is not None else 0
        folder.runs.check(needed + (_result_bytes(site) if config.federation.deliver else 0))


def _head_bytes(config: Config, site: Site) -> int:
    """All heads of a run, each written whole before an old one goes."""
    head: int = sum(value.numel() * value.element_size() + OVERHEAD for value in site.parts.kept_tensors.values())
    return head * _copies(config)


def _step_bytes(config: Config, site: Site) -> int:
    """The same of what update steps keep: about as much as an update."""
    return (bytes_of(site.model) + OVERHEAD) * _copies(config)


def _received_bytes(site: Site) -> int:
    """Of models that a SuperNode has got, a new one of which is written whole before an old one goes."""
    shared = shared_state(site.model).values()
    return (MODELS_KEPT + 1) * sum(value.numel() * value.element_size() + OVERHEAD for value in shared)


def _copies(config: Config) -> int:
    return KEPT * int(config.run.checkpoint_every) + 4  # as FolderHead: these rounds, one, two before, one more


def _result_bytes(site: Site) -> int:
    total: int = sum(v.numel() * v.element_size() + OVERHEAD for v in site.whole.state_dict().values())
    return total + CONFIG_BYTES


def open_storage(context: Context, config: Config, site: Site, run: str) -> ClientStorage:
    """`run`: the run's name, as its server says. Raises ConfigError as `check_disk` does."""
    check_disk(context, config, site)
    keeps = not site.parts.is_whole or site.parts.personal.own is not None
    heads = _open_stores("heads", context, config, run, _head_bytes(config, site)) if keeps else None
    keeping = [step for step in site.steps.steps if step.keeps_state]
    if keeping:
        check_resumable(context, config)
    stores = _open_stores("steps", context, config, run, _step_bytes(config, site)) if keeping else None
    states = StepStates(stores, keeping) if stores is not None else None
    return ClientStorage(open_account(context, config, site, run), heads, states)


def open_account(context: Context, config: Config, site: Site, run: str = "") -> Account | None:
    """Where this SuperNode's clients write what they spend of their privacy; None where nothing is spent. `run`: the
    run's name, which it keeps when it is resumed; without one Flower's number for it."""
    if not site.protection.spends:
        return None
    limits, name = own_limits(context.node_config), run or str(context.run_id)
    if limits.of_device:
        if limits.ledger is None:
            raise ConfigError(
                "ledger-path: in a run that spends of a privacy budget a device's node-config must name a file for its"
                " ledger (privacy=dp_sgd)"
            )
        ledger = device_ledger(context.node_config, limits.ledger, site.protection.unit)
        return Account(name, lambda client: ledger)
    unit = site.protection.unit
    if (known := simulated_run_directory(config)) is None:
        return Account(name, lambda client: StateLedger(context.state, client))
    return Account(name, lambda client: FileLedger(known / "ledgers" / f"client-{client}{unit}.jsonl"))


def device_ledger(node_config: NodeConfig, path: Path, unit: str = "") -> FileLedger:
    """A device's, of which its own folder, where it has one, remembers how long it was. `unit`: as a protection has it,
    "" for single examples."""
    folder = storage_folder(node_config)
    head = folder.path / f"ledger{unit}.head" if folder else None
    return FileLedger(path.with_name(path.name + unit), second_head=head, makes_folder=False)


def check_resumable(context: Context, config: Config) -> None:
    """Raises ConfigError where a run is resumed whose update steps have kept something on its clients, and it is gone:
    the run would end with another model. With run.resume=auto a simulation without a checkpoint is a new run: a
    folder for what will be kept tells it from one that has lost it."""
    if config.run.resume is None:
        return
    known = simulated_run_directory(config)
    is_simulation = local_data_path(context.node_config) is None
    may_begin = is_simulation and config.run.resume == "auto"
    if may_begin and known is not None and not any((known / "checkpoint").glob("*.safetensors")):
        (known / "steps").mkdir(parents=True, exist_ok=True)
    if not is_simulation:
        there = storage_folder(context.node_config) is not None
    else:
        there = known is not None and (known / "steps").is_dir()
    if not there:
        raise ConfigError(
            f"run.resume={config.run.resume}: an update step (compression) keeps state on the clients, and there is"
            " none here: a device needs keep-path in its node-config, and a simulation that can be resumed its"
            " run.output_dir; start a new run"
        )


def _open_stores(kind: str, context: Context, config: Config, run: str, needed: int) -> Heads:
    """`kind`: heads or steps. `needed`: bytes that a run's may take on a device."""
    rounds_back = KEPT * config.run.checkpoint_every
    if local_data_path(context.node_config) is not None:
        folder = storage_folder(context.node_config)
        if folder is not None and run:
            runs = folder.runs

            def before_keeping() -> None:
                runs.note_training(run)
                runs.make_room(kind, run, needed)

            own = FolderHead(folder.path / kind / run, rounds_back=rounds_back, before_keeping=before_keeping)
            return lambda client: own
    elif (known := simulated_run_directory(config)) is not None:
        return lambda client: FolderHead(known / kind / f"client-{client}", rounds_back=rounds_back)
    return lambda client: StateHead(context.state, f"{kind}-{client}")


def open_received(context: Context, config: Config, site: Site, run: str) -> ModelStore:
    """Where a SuperNode has the last models that it got of a run. To store one gives a run no right to a device's disk:
    a training does, and whoever trains notes it."""
    if local_data_path(context.node_config) is not None:
        folder = storage_folder(context.node_config)
        if folder is not None and run:
            room = partial(folder.runs.make_room, RECEIVED, run, _received_bytes(site))
            return FolderModels(folder.path / RECEIVED / run, before_keeping=room)
    elif (known := simulated_run_directory(config)) is not None:
        return FolderModels(known / RECEIVED / f"supernode-{context.node_config.get('partition-id', 0)}")
    return StateModels(context.state)


def kept_states(directory: Path, client: int) -> Mapping[str, Tensor]:
    """Of a finished simulation, what a client of it has kept of the model, or as its own model; empty for nothing."""
    return FolderHead(directory / "heads" / f"client-{client}", rounds_back=0).after(sys.maxsize) or {}


def simulated_run_directory(config: Config) -> Path | None:
    """A simulation's run directory, where its clients know it."""
    return run_directory(config.run.resume) or (Path(config.run.output_dir) if config.run.output_dir else None)


def store_result(folder: Folder, config: Config, run: str, state: Mapping[str, Tensor]) -> Path:
    """Write the run's result, the whole network's state, beside the config that says what it is. Returns its folder;
    `latest` beside it leads to the newest one of a run in which this device has trained, if there is one."""
    content = tensor_file(state)
    target = folder.runs.make_room("models", run, len(content) + CONFIG_BYTES)
    target.mkdir(parents=True, exist_ok=True)
    data = {key: None if key in ("path", "test_path") else value for key, value in config.data.items()}
    write_atomically(target / "config.yaml", to_yaml(replace(config, data=data)).encode())
    write_atomically(target / "model.safetensors", content, mode=0o600)
    log.info("the run's result is in %s", target)
    latest = target.with_name("latest")
    if latest.exists() and folder.runs.has_trained(latest.resolve().name) and not folder.runs.has_trained(run):
        return target
    link = target.with_name(f"latest.{os.getpid()}")
    link.symlink_to(target.name)
    os.replace(link, latest)
    return target
