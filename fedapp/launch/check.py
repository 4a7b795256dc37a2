"""What of a simulation can be known to fail before anything starts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedapp.common.errors import ConfigError
from fedapp.common.override_text import quoted
from fedapp.config import Config
from fedapp.data.findings import Findings
from fedapp.data.shards import Shards, Split
from fedapp.data.shared_examples import keep_shards
from fedapp.launch.objective import check_objective
from fedapp.learning.build_shards import build_shards, examples_key
from fedapp.learning.precision import check_precision
from fedapp.server.check_config import Checked, check_cohort, check_config, check_directory, check_num_clients
from fedapp.server.vertical.vertical_run import CheckedParties, check_parties

__all__ = ["Ready", "absolute_paths", "check"]


@dataclass(frozen=True)
class Ready:
    """A simulation that can start. `shards`: its clients' data, loaded and split; None where they are parties, which
    read their own. `done`: the round after which it is
    resumed, or -1 for a new one."""

    checked: Checked | CheckedParties
    shards: Shards | None
    done: int


def check(
    config: Config,
    directory: Path,
    splits: Path | None = None,
    *,
    given: Split | None = None,
    show: Callable[[Findings], None] = lambda _: None,
) -> Ready:
    """Of a simulation whatever can be known to fail is refused here, with nothing started and nothing left behind.

    `splits`: the folder for the split and the examples, which are made here. `given`: the clients' examples, in place
    of what the config makes of its data. `show` is told what was found in the data.
    """
    check_objective(config)
    if config.task.by_columns:
        return _check_parties(config, directory, show)
    check_num_clients(config)
    checked = check_config(config)
    checked.privacy.check_simulation(config, checked.parts)
    check_precision(config.train.precision, checked.parts.whole, checked.parts.task)
    check_cohort(checked, range(config.federation.num_clients))
    shards = build_shards(config, checked.parts, splits=splits)
    if given is not None:
        shards.adopt(*given)
    shards.load()
    if splits is not None:
        keep_shards(shards, splits, examples_key(config))
    show(checked.parts.source.findings())
    return Ready(checked, shards, check_directory(checked, directory))


def _check_parties(config: Config, directory: Path, show: Callable[[Findings], None]) -> Ready:
    """The same for parties with different columns, whose tables are read here once, to say what is wrong with them."""
    checked = check_parties(config)
    options = checked.options
    for name in options.names:
        options.source.table(name, options.label_party)
    show(options.source.findings())
    return Ready(checked, None, check_directory(checked, directory))


def absolute_paths(config: Config) -> list[str]:
    """Overrides that make relative paths absolute: a path is meant from where the person is, not the server."""
    paths = {f"data.{key}": config.data.get(key) for key in ("path", "test_path")}
    if isinstance(parties := config.data.get("parties"), dict):  # each has a file
        paths |= {f"data.parties.{name}": path for name, path in parties.items()}
    paths |= {"run.resume": None if config.run.resume == "auto" else config.run.resume}
    paths |= {"run.initial_model": config.run.initial_model, "run.replay": config.run.replay}
    paths |= {"federation.client_speed.path": config.federation.client_speed.get("path")}
    if isinstance(weights := config.model.get("pretrained"), str) and weights:
        paths |= {"model.pretrained": weights}
    full = {key: Path(path).expanduser().absolute() for key, path in paths.items() if path}
    if (resume := full.get("run.resume")) is not None and not resume.exists():
        raise ConfigError(
            f"run.resume={paths['run.resume']}: does not exist; give null, auto, a run directory or a checkpoint in one"
        )
    return [f"{key}={quoted(path)}" for key, path in full.items() if str(path) != paths[key]]
