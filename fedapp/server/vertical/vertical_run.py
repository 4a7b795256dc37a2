"""A vertical run on the server, from config to report."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from logging import INFO, WARNING
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from fedapp.common.code_digest import code_digest
from fedapp.common.errors import FederationError
from fedapp.common.logger import log
from fedapp.config import Config, maths_sha256, to_yaml
from fedapp.data.party_table import PartySource
from fedapp.learning.build_task import check_target
from fedapp.server.build import learning_rates
from fedapp.server.build_rules import check_patience_metric, rules_of
from fedapp.server.ending import Ending, Result
from fedapp.server.exchange import Exchange
from fedapp.server.run_directory.claim import claim, writing
from fedapp.server.run_directory.lock import LOCK, only_writer
from fedapp.server.run_directory.record import RunRecord
from fedapp.server.run_directory.resume import check_same_data, find_checkpoint
from fedapp.server.run_directory.versions import versions
from fedapp.server.stopping import StopRules
from fedapp.server.training_run import OnRound, TrainingRun
from fedapp.server.vertical.join import JoinRules, join
from fedapp.server.vertical.prediction import predict_parties
from fedapp.server.vertical.vertical_training import VerticalTraining
from fedapp.tracking.tracker import Tracker, about_run, tracker_of
from fedapp.vertical.vertical_options import VerticalOptions, vertical_options

__all__ = ["CheckedParties", "check_parties", "check_parties_directory", "run_parties"]

AsJson = Callable[[Config], Any]


@dataclass(frozen=True)
class CheckedParties:
    """A vertical config that can work, and what was made of it."""

    config: Config
    options: VerticalOptions
    rules: StopRules
    tracker: Tracker

    @property
    def source(self) -> PartySource:
        return self.options.source


def check_parties(config: Config) -> CheckedParties:
    """Refuse what cannot work whoever the parties are. Raises FedappError."""
    options = vertical_options(config)
    check_patience_metric(config, options.task)
    check_target(config, options.task)
    learning_rates(config, "client_lr")
    return CheckedParties(config, options, rules_of(config, options.task, len(options.names)), tracker_of(config))


def check_parties_directory(checked: CheckedParties, directory: Path, config: Any) -> int:
    """Refuse a run directory in which this run cannot begin or go on. `config`: as JSON. Returns the round after which
    a run is resumed, or -1."""
    resume = checked.config.run.resume
    resumed = find_checkpoint(directory, resume, config, quiet=True)
    claim(directory, resume=resume is not None)
    if (directory / LOCK).exists():
        with only_writer(directory):
            pass
    return resumed.server_round if resumed is not None else -1


def run_parties(
    grid: Grid,
    checked: CheckedParties,
    directory: Path,
    start: float,
    overrides: Sequence[str],
    *,
    on_round: OnRound,
    show: Callable[[Path, dict[str, Any]], None],
    as_json: AsJson,
) -> None:
    """Preflight, matching, rounds, report. Raises FedappError for whatever a person can mend."""
    config, options = checked.config, checked.options
    given = as_json(config)
    find_checkpoint(directory, config.run.resume, given, quiet=True)
    exchange, rules = Exchange(grid), _rules(config, options)
    if config.vertical.predict is not None:
        predict_parties(exchange, config, options, rules, directory, start, show)
        return
    joined = join(exchange, rules)
    _say(joined.relay.view, options)
    claim(directory, resume=config.run.resume is not None)
    with only_writer(directory), writing(directory):
        claim(directory, resume=config.run.resume is not None, held=True)
        resumed = find_checkpoint(directory, config.run.resume, given)
        saved, data = None if resumed is None else resumed.values, dict(joined.data)
        rows = {party.client: party.rows for party in joined.relay.view.parties}
        trackers = checked.tracker.listeners(about_run(config, directory, len(rows), private=False))
        record = RunRecord(directory, to_yaml(config), rows, options.task.metrics, saved, trackers=trackers)
        warnings = dict(joined.warnings)
        if resumed is not None:
            warnings |= check_same_data(resumed, data, refuse=bool(data))
            data = resumed.values["data"] | data
        record.warnings.add(warnings)
        for text in warnings.values():
            log(WARNING, "%s", text)
        log(INFO, "run directory: %s", directory)
        training = VerticalTraining(
            exchange,
            rules,
            joined,
            options.task,
            local_epochs=config.train.local_epochs,
            lr_factor=learning_rates(config, "client_lr"),
            name=secrets.choice("abcdef") + secrets.token_hex(8)[1:],  # so that overrides take it for no number
            most_failed=config.federation.max_failed_rounds,
        )
        run = TrainingRun(
            training,
            record,
            checked.rules,
            Ending(evaluate=True),
            checkpoint_every=config.run.checkpoint_every,
            about={"config": given, "overrides": list(overrides), "data": data},
            start=start,
            on_round=on_round,
        )
        result = run.run(resumed)
        summary = _summary(checked, training, run, result)
        record.finish(summary, None)
        show(directory, summary)
    if result.failed is not None:
        raise FederationError(result.failed)


def _rules(config: Config, options: VerticalOptions) -> JoinRules:
    federation = config.federation
    return JoinRules(
        options,
        f"{maths_sha256(config)}{code_digest()}",
        config.vertical.embedding,
        config.train.batch_size,
        federation.wait_timeout,
        federation.round_timeout,
    )


def _say(view: Any, options: VerticalOptions) -> None:
    """Who takes part, and what the run does not hide."""
    for party in view.parties:
        role = "labels and " if party.labels else ""
        log(
            INFO,
            "party %s: %s%d columns of %d rows (client %d)",
            party.name,
            role,
            party.columns,
            party.rows,
            party.client,
        )
    for text in not_hidden(options):
        log(INFO, "not hidden: %s", text)


def not_hidden(options: VerticalOptions) -> list[str]:
    """What the parties of this run learn of each other besides the model's use."""
    label_party = options.label_party
    found = [
        f"{label_party} learns which of its entities each party has; each party, which of its own are in use, and how"
        " often",
        options.label_privacy.left_open,
    ]
    if options.fusion.masked:
        found.append(
            f"{label_party} sees the sum of the others' embeddings; where entities repeat, sums determine single"
            " embeddings up to a constant"
        )
    else:
        found.append(f"{label_party} sees each other party's embeddings")
    return found


def _summary(checked: CheckedParties, training: VerticalTraining, run: TrainingRun, result: Result) -> dict[str, Any]:
    """What summary.json holds."""
    options, joined, progress = checked.options, training.joined, run.rules.progress
    metrics = options.task.metrics
    parties = {
        party.name: {
            "labels": party.labels,
            "columns": party.columns,
            "rows": party.rows,
            "matched": joined.train + joined.test if party.labels else joined.matched[party.name],
            "parameters": joined.parameters[party.name],
            "bytes_down": training.traffic[party.name][0],
            "bytes_up": training.traffic[party.name][1],
            "part_sha256": training.digests.get(party.name, ""),
        }
        for party in joined.relay.view.parties
    }
    return {
        "status": "finished" if result.failed is None else "failed",
        "stop_reason": result.stop_reason,
        "rounds": result.rounds,
        "rounds_to_target": progress.rounds_to_target,
        f"best_{run.rules.patience_metric}": progress.best,
        "best_round": progress.best_round,
        **({"test_loss": None, f"test_{options.task.main_metric}": None} | result.test),
        "clients": len(parties),
        "run": training.name,
        "parties": parties,
        "label_party": options.label_party,
        "entities": {"train": joined.train, "held_out": joined.test},
        "not_hidden": not_hidden(options),
        "warnings": run.record.warnings.texts(),
        "supernodes": len(set(joined.relay.hosts.values())),
        **run.record.totals,
        "seconds": run.seconds,
        "delivered": result.delivered,
        "label_epsilon": options.label_privacy.budget,
        "parameters": sum(joined.parameters.values()),
        "model_sha256": training.model_sha256,
        "lower_is_better": ["loss", *(name for name, metric in metrics.items() if metric.lower_is_better)],
        "task": checked.config.task.name,
        "seed": checked.config.run.seed,
        "versions": versions(),
    }
