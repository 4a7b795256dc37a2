"""What of a config can be known to fail before anything starts: the same for every door to a run."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedapp.aggregation.conflicts import check_options
from fedapp.aggregation.protocol import AggregationProtocol, protocol_of
from fedapp.common.errors import ConfigError
from fedapp.config import Config
from fedapp.data.source import Examples
from fedapp.learning.build import Parts, build_parts
from fedapp.privacy.option import PrivacyOption, privacy_of
from fedapp.server.asynchronous.option import RoundsOption, rounds_of
from fedapp.server.build import central_test, check_strategy, cohort_rule, load_initial
from fedapp.server.build_rules import stop_rules
from fedapp.server.run_directory.checkpoint import Checkpoint
from fedapp.server.run_directory.claim import claim
from fedapp.server.run_directory.lock import LOCK, only_writer
from fedapp.server.run_directory.resume import find_checkpoint
from fedapp.server.stopping import StopRules
from fedapp.server.vertical.vertical_run import CheckedParties, check_parties, check_parties_directory
from fedapp.tracking.tracker import Tracker, tracker_of
from fedapp.updates.downlink import Downlink, downlink_of
from fedapp.updates.steps import UpdateSteps, steps_of

__all__ = [
    "Checked",
    "as_json",
    "check_cohort",
    "check_config",
    "check_directory",
    "check_num_clients",
    "check_run",
    "checkpoint_of",
]


@dataclass(frozen=True)
class Checked:
    """A config that can work, and what was made of it. `test`: the server's held-out data, where it has any."""

    config: Config
    parts: Parts
    protocol: AggregationProtocol
    privacy: PrivacyOption
    steps: UpdateSteps
    test: Examples | None
    rules: StopRules
    tracker: Tracker
    rounds: RoundsOption
    downlink: Downlink


def check_config(config: Config) -> Checked:
    """Refuse what cannot work whoever the clients are, and whatever data they have. Raises FedappError."""
    check_strategy(config)
    parts = build_parts(config)
    test = central_test(config, parts)
    protocol, privacy = protocol_of(config), privacy_of(config)
    steps = steps_of(config, privacy.steps(config, parts))
    check_options(config, parts, protocol, privacy, steps)
    rounds = rounds_of(config)
    rounds.conflicts(config, parts)
    downlink = downlink_of(config)
    downlink.check_rounds(config, synchronous=rounds.policy(config) is None)
    rules = stop_rules(config, parts, test)
    rounds.check_judges(config, test)
    return Checked(config, parts, protocol, privacy, steps, test, rules, tracker_of(config), rounds, downlink)


def check_run(config: Config) -> Checked | CheckedParties:
    """The same for clients with different examples, and for parties with different columns."""
    return check_parties(config) if config.task.by_columns else check_config(config)


def check_cohort(checked: Checked, clients: Collection[int]) -> None:
    """Refuse what cannot work with the cohorts that these clients make."""
    rule = cohort_rule(checked.config)
    there = len(rule.whole(clients))
    needed = rule.needed(there)
    checked.protocol.check_cohort(checked.config, checked.parts, needed, rule.asked(needed, there), there)
    checked.rounds.check_clients(there)
    if there < min(rule.minimum, len(clients)):
        raise ConfigError(
            f"federation.min_clients={checked.config.federation.min_clients}: of {len(clients)} clients {there} are in"
            " complete groups (secure_aggregation), so no round could succeed; lower min_clients"
        )


def check_directory(checked: Checked | CheckedParties, directory: Path) -> int:
    """Refuse a run directory in which this run cannot begin or go on, and a model that it cannot begin with.

    Returns the round after which a run is resumed, or -1 for a new one.
    """
    if isinstance(checked, CheckedParties):
        return check_parties_directory(checked, directory, as_json(checked.config))
    run, resumed = checked.config.run, checkpoint_of(checked, directory, quiet=True)
    if resumed is None:
        load_initial(checked.config, checked.parts)
    claim(directory, resume=run.resume is not None)
    if (directory / LOCK).exists():
        with only_writer(directory):
            pass
    return resumed.server_round if resumed is not None else -1


def checkpoint_of(checked: Checked, directory: Path, *, quiet: bool = False) -> Checkpoint | None:
    """The checkpoint to go on from; None to begin anew. Raises FedappError where the run cannot go on."""
    free = {f"secure_aggregation.{key}" for key in checked.protocol.free_keys}
    free |= {f"privacy.{key}" for key in checked.privacy.free_keys}
    config = as_json(checked.config)
    return find_checkpoint(directory, checked.config.run.resume, config, free=free, quiet=quiet)


def as_json(config: Config) -> Mapping[str, Any]:
    """The config as a checkpoint holds it."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return found


def check_num_clients(config: Config) -> None:
    """Refuse rounds for which a simulation has too few clients."""
    federation, fewest = config.federation, check_strategy(config)
    everyone = range(federation.num_clients)
    if left := sorted(set(everyone) - set(cohort_rule(config).whole(everyone))):
        raise ConfigError(
            f"federation.num_clients={federation.num_clients}: clients {left[:20]} are in no complete group"
            f" (secure_aggregation), so they would never take part; set it to {len(everyone) - len(left)}, or more"
        )
    if federation.min_clients > federation.num_clients:
        raise ConfigError(
            f"federation.min_clients={federation.min_clients}: more than federation.num_clients="
            f"{federation.num_clients}, so no round could succeed; lower min_clients"
        )
    if fewest > federation.num_clients:
        given = ", ".join(f"{k}={v}" for k, v in config.strategy.aggregation.items() if k != "_target_")
        raise ConfigError(
            f"strategy.aggregation ({given}): needs {fewest} clients a round, more than federation.num_clients="
            f"{federation.num_clients}"
        )
