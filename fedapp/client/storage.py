"""Storage of a SuperNode's clients between messages: ledgers, personal heads, features, and the run's result.

A device has a folder of its own for it, named by its operator (`keep-path` in the node-config), and its ledger has a
file of its own (`ledger-path`). In a simulation it lies in the run directory; where that is not known, it lasts as long
as the run. Nothing of it is ever sent.
"""

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from flwr.app import Context
from safetensors.torch import save
from torch import Tensor

from fedapp.client.heads import FolderHead, Heads, StateHead
from fedapp.client.site import ClientStorage, Site
from fedapp.client.step_states import StepStates
from fedapp.common.errors import ConfigError, NodeConfigError
from fedapp.common.files import write_atomically
from fedapp.common.run_paths import KEPT, run_directory
from fedapp.config import Config, to_yaml
from fedapp.data.shards import local_data_path
from fedapp.privacy.ledger import FileLedger, StateLedger
from fedapp.privacy.limits import own_limits
from fedapp.privacy.protection import Account

__all__ = ["Folder", "open_account", "open_storage", "storage_folder", "store_result"]

log = logging.getLogger("flwr")

NodeConfig = Mapping[str, bool | int | float | str]
RUNS_KEPT = 4  # of how many runs a device has heads and results
FEATURES_MB = 1024


@dataclass(frozen=True)
class Folder:
    """A device's own folder, and how many bytes of it features may fill."""

    path: Path
    feature_bytes: int = FEATURES_MB << 20


def storage_folder(node_config: NodeConfig) -> Folder | None:
    """None where the operator named no folder. Raises NodeConfigError for what is none."""
    given, size = node_config.get("keep-path"), node_config.get("features-mb", FEATURES_MB)
    if given is None:
        if "features-mb" in node_config:
            raise NodeConfigError("node-config features-mb: has an effect together with keep-path only")
        return None
    if "data-path" not in node_config:
        raise NodeConfigError("node-config keep-path: is for a device with data of its own (data-path)")
    if not isinstance(given, str) or not Path(given).expanduser().is_absolute():
        raise NodeConfigError(f"node-config keep-path={given}: must be an absolute path")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise NodeConfigError(f"node-config features-mb={size}: must be a whole number, 0 or more")
    return Folder(Path(given).expanduser(), size << 20)


def open_storage(context: Context, config: Config, site: Site, run: str) -> ClientStorage:
    """`run`: the run's name, as its server says."""
    heads = None if site.parts.is_whole else _open_heads(context, config, run)
    keeping = [step for step in site.steps.steps if step.keeps_state]
    states = StepStates(context.state, keeping) if keeping else None
    return ClientStorage(open_account(context, config, site), heads, states)


def open_account(context: Context, config: Config, site: Site) -> Account | None:
    """Where this SuperNode's clients write what they spend of their privacy; None where nothing is spent."""
    if not site.protection.spends:
        return None
    limits = own_limits(context.node_config)
    if limits.of_device:
        if limits.ledger is None:
            raise ConfigError(
                "ledger-path: in a run that spends of a privacy budget a device's node-config must name a file for its"
                " ledger (privacy=dp_sgd)"
            )
        ledger = FileLedger(limits.ledger)
        return Account(str(context.run_id), lambda client: ledger)
    if (known := _run_directory(config)) is None:
        return Account(str(context.run_id), lambda client: StateLedger(context.state, client))
    return Account(str(context.run_id), lambda client: FileLedger(known / "ledgers" / f"client-{client}.jsonl"))


def _open_heads(context: Context, config: Config, run: str) -> Heads:
    rounds_back = KEPT * config.run.checkpoint_every
    if local_data_path(context.node_config) is not None:
        folder = storage_folder(context.node_config)
        if folder is not None and run:
            own = FolderHead(_of_run(folder.path / "heads", run), rounds_back=rounds_back)
            return lambda client: own
    elif (known := _run_directory(config)) is not None:
        return lambda client: FolderHead(known / "heads" / f"client-{client}", rounds_back=rounds_back)
    return lambda client: StateHead(context.state, client)


def _run_directory(config: Config) -> Path | None:
    """A simulation's run directory, where its clients know it."""
    return run_directory(config.run.resume) or (Path(config.run.output_dir) if config.run.output_dir else None)


def store_result(folder: Folder, config: Config, run: str, state: Mapping[str, Tensor]) -> Path:
    """Write the run's result, the whole network's state, beside the config that says what it is. Returns its folder;
    `latest` beside it leads there, too."""
    target = _of_run(folder.path / "models", run)
    target.mkdir(parents=True, exist_ok=True)
    data = {key: None if key in ("path", "test_path") else value for key, value in config.data.items()}
    write_atomically(target / "config.yaml", to_yaml(replace(config, data=data)).encode())
    content = save({name: value.detach().cpu().contiguous() for name, value in state.items()})
    write_atomically(target / "model.safetensors", content, mode=0o600)
    link = target.with_name(f"latest.{os.getpid()}")
    link.symlink_to(target.name)
    os.replace(link, target.with_name("latest"))
    log.info("the run's result is in %s", target)
    return target


def _of_run(folder: Path, run: str) -> Path:
    """This run's own folder in `folder`; those of runs long ago go."""
    target = folder / run
    if not target.exists():
        others = [path for path in folder.glob("*") if path.is_dir() and not path.is_symlink()]
        others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in others[RUNS_KEPT - 1 :]:
            shutil.rmtree(path, ignore_errors=True)
    return target
