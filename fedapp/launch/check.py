"""What of a config can be known to fail before anything starts."""

import json
from dataclasses import asdict
from pathlib import Path

from fedapp.aggregation.secaggplus.build import check_secure, check_secure_cohort
from fedapp.common.errors import ConfigError
from fedapp.config import Config
from fedapp.launch.follow import quoted
from fedapp.learning.build import Parts, build_parts, build_shards
from fedapp.server.build import central_test, check_strategy, load_initial, stop_rules
from fedapp.server.run_directory.lock import LOCK, only_writer
from fedapp.server.run_directory.record import claim
from fedapp.server.run_directory.resume import find_checkpoint

__all__ = ["absolute_paths", "check", "check_config", "check_directory"]


def check(config: Config, directory: Path, splits: Path | None = None) -> int:
    """Of a simulation whatever can be known to fail is refused here, with nothing started and nothing left behind.

    `splits`: the folder for the split of the data, which is made here. Returns the round after which a run is resumed,
    or -1 for a new one.
    """
    federation = config.federation
    if federation.min_clients > federation.num_clients:
        raise ConfigError(
            f"federation.min_clients={federation.min_clients}: more than federation.num_clients="
            f"{federation.num_clients}, so no round could succeed; lower min_clients"
        )
    if (fewest := check_strategy(config)) > federation.num_clients:
        given = ", ".join(f"{k}={v}" for k, v in config.strategy.aggregation.items() if k != "_target_")
        raise ConfigError(
            f"strategy.aggregation ({given}): needs {fewest} clients a round, more than federation.num_clients="
            f"{federation.num_clients}"
        )
    parts = check_config(config)
    if config.secure_aggregation.name != "none":
        check_secure_cohort(config, federation.num_clients)
    build_shards(config, parts, splits=splits).of(0)
    return check_directory(config, directory, parts)


def check_config(config: Config) -> Parts:
    """Refuse what cannot work whoever the clients are, and whatever data they have."""
    check_strategy(config)
    parts = build_parts(config)
    test = central_test(config, parts)
    if config.privacy.name != "none":
        from fedapp.privacy.build import check_privacy  # Opacus takes 2 s to import

        check_privacy(config, parts)
    if config.secure_aggregation.name != "none":
        check_secure(config, parts)
    stop_rules(config, parts, server_has_data=test is not None)
    return parts


def check_directory(config: Config, directory: Path, parts: Parts) -> int:
    """Refuse a run directory in which this run cannot begin or go on, and a model that it cannot begin with.

    Returns the round after which a run is resumed, or -1 for a new one.
    """
    resumed = find_checkpoint(directory, config.run.resume, json.loads(json.dumps(asdict(config))), quiet=True)
    if resumed is None:
        load_initial(config, parts)
    claim(directory, resume=config.run.resume is not None)
    if (directory / LOCK).exists():
        with only_writer(directory):
            pass
    return resumed.server_round if resumed is not None else -1


def absolute_paths(config: Config) -> list[str]:
    """Overrides that make relative paths absolute: a path is meant from where the person is, not the server."""
    paths = {f"data.{key}": config.data.get(key) for key in ("path", "test_path")}
    paths |= {"run.resume": None if config.run.resume == "auto" else config.run.resume}
    paths |= {"run.initial_model": config.run.initial_model}
    if isinstance(weights := config.model.get("pretrained"), str) and weights:
        paths |= {"model.pretrained": weights}
    full = {key: Path(path).expanduser().absolute() for key, path in paths.items() if path}
    if (resume := full.get("run.resume")) is not None and not resume.exists():
        raise ConfigError(
            f"run.resume={paths['run.resume']}: must be null, auto, a run directory or a checkpoint in one"
        )
    return [f"{key}={quoted(path)}" for key, path in full.items() if str(path) != paths[key]]
