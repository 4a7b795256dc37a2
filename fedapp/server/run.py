"""The server's run, from config to report, once through."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from logging import ERROR, INFO, WARNING
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.common.logger import log
from flwr.serverapp import Grid

from fedapp.aggregation.secaggplus.build import check_secure
from fedapp.common.code_digest import check_bundle
from fedapp.common.errors import FedappError, FederationError
from fedapp.common.state_digest import state_sha256
from fedapp.config import Config, compose, split_overrides, to_yaml
from fedapp.data.features import features_of
from fedapp.flower.simulation import is_simulated
from fedapp.learning.build import Parts, build_parts
from fedapp.models.input_layer import InputLayer
from fedapp.models.shared_state import load_shared, shared_state
from fedapp.server.build import build_strategy, central_test, check_strategy, load_initial, output_directory, stop_rules
from fedapp.server.exchange import Exchange
from fedapp.server.population.attendance import Attendance
from fedapp.server.population.preflight import Population, preflight
from fedapp.server.population.roster import Roster
from fedapp.server.result import Result
from fedapp.server.rounds import Federation
from fedapp.server.run_directory.lock import only_writer
from fedapp.server.run_directory.record import RunRecord, claim, versions
from fedapp.server.run_directory.resume import check_same_form, find_checkpoint

__all__ = ["run_context", "run_federation", "settled"]


def run_context(grid: Grid, context: Context, start: float) -> None:
    """Run the federation that the run-config's `overrides` describe. Every refusal is said in one message.

    `start`: of the run, by `time.perf_counter`.
    """
    try:
        check_bundle(grid.run.fab_hash)
        overrides = split_overrides(str(context.run_config["overrides"]))
        config = compose(overrides)
        default = Path.home() / "fedapp-runs" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{context.run_id}"
        run_federation(grid, config, output_directory(config, default), start, overrides)
    except FedappError as error:
        log(ERROR, "fedapp: %s", error)
        raise


def run_federation(grid: Grid, config: Config, directory: Path, start: float, overrides: Sequence[str] = ()) -> None:
    """Preflight, rounds, report. Raises FedappError for whatever a person can mend."""
    check_strategy(config)
    parts = build_parts(config)
    test = central_test(config, parts)
    privacy = privacy_of(config, parts)
    if config.secure_aggregation.name != "none":
        check_secure(config, parts)
    rules = stop_rules(config, parts, server_has_data=test is not None)
    about = {"config": json.loads(json.dumps(asdict(config))), "overrides": list(overrides)}
    # What is wrong with either is said before anything starts.
    if find_checkpoint(directory, config.run.resume, about["config"], quiet=True) is None:
        load_initial(config, parts)
    federation, exchange = config.federation, Exchange(grid)
    population = preflight(
        exchange,
        min_supernodes=federation.min_supernodes,
        wait_timeout=federation.wait_timeout,
        timeout=max(federation.round_timeout, federation.wait_timeout),  # a first answer includes starting up
        min_clients=federation.min_clients,
        num_clients=federation.num_clients,
        backbone=parts.backbone,
    )
    for who, why in sorted(population.faults.items()):
        log(WARNING, "%s takes no part: %s", who, why)
    if config.run.initial_model is None:  # else it works with the constants that it has learnt with
        agree_on_scaling(parts, population)
    roster = Roster(
        population,
        exclude_after=federation.exclude_after,
        exclude_rounds=federation.exclude_rounds,
        movable=is_simulated(grid) and population.partitions < federation.num_clients and keeps_nothing(config, parts),
    )
    strategy = build_strategy(config, parts, roster)
    claim(directory, resume=config.run.resume is not None)
    with only_writer(directory):
        resumed = find_checkpoint(directory, config.run.resume, about["config"])
        if resumed is not None:
            check_same_form(resumed, shared_state(parts.model))
        saved = None if resumed is None else resumed.values
        record = RunRecord(
            directory, to_yaml(settled(config, parts)), roster.num_examples, parts.task.main_metric, saved
        )
        log(INFO, "run directory: %s", directory)
        strategy.summary()
        run = Federation(
            exchange=exchange,
            attendance=Attendance(
                exchange,
                roster,
                asked=population.supernodes,
                partitions=population.partitions,
                num_clients=federation.num_clients,
                min_clients=strategy.min_clients,
                wait_timeout=federation.wait_timeout,
                reply_timeout=federation.round_timeout,
                backbone=parts.backbone,
            ),
            strategy=strategy,
            task=parts.task,
            model=parts.model,
            test=test if test is None or parts.frozen is None else features_of(parts.frozen, test),
            record=record,
            rules=replace(rules, min_clients=strategy.min_clients),
            round_timeout=federation.round_timeout,
            final_evaluation=federation.final_evaluation,
            deliver=federation.deliver,
            checkpoint_every=config.run.checkpoint_every,
            about=about,
            start=start,
        )
        result = run.run(resumed)
        load_shared(parts.model, result.state)
        summary = summarise(config, parts, run, result, privacy)
        record.finish(summary, parts.whole.state_dict())
        show(directory, summary)
    if result.failed is not None:
        raise FederationError(result.failed)


def settled(config: Config, parts: Parts) -> Config:
    """The config with what was found in the data written out, so that the model can be used where the data is not."""
    return replace(config, data={**config.data, **parts.source.settled()})


def keeps_nothing(config: Config, parts: Parts) -> bool:
    """Whether clients leave nothing on the SuperNode that does their work: no head, account, secret or features."""
    kinds = {config.federation.personal, config.privacy.name, config.secure_aggregation.name}
    return kinds == {"none"} and parts.frozen is None


def agree_on_scaling(parts: Parts, population: Population) -> None:
    """Put the federation's scaling constants into the model's input layer; from there they travel with the model."""
    layer = parts.whole.get_submodule("input")
    if population.mean is not None and population.std is not None and isinstance(layer, InputLayer):
        layer.set_statistics(population.mean, population.std)


def privacy_of(config: Config, parts: Parts) -> dict[str, Any] | None:
    """What is said of privacy in the summary. Raises ConfigError for what cannot be protected."""
    if config.privacy.name == "none":
        return None
    from fedapp.privacy.build import check_privacy  # Opacus takes 2 s to import

    plan = check_privacy(config, parts)
    budget = plan.budget
    return {
        "unit": "one example of one client's data",
        "target_epsilon": config.privacy.target_epsilon,
        "accountant": budget.accountant,
        "noise_multiplier": budget.cost.noise_multiplier,
        "sample_rate": budget.cost.sample_rate,
        "steps_per_round": budget.cost.steps,
        "max_grad_norm": config.privacy.max_grad_norm,
        "noise_source": config.privacy.noise_source,
        "grad_sample_mode": plan.mode,
    }


def summarise(
    config: Config, parts: Parts, run: Federation, result: Result, privacy: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What summary.json holds."""
    roster, progress = run.strategy.roster, run.rules.progress
    return {
        "status": "finished" if result.failed is None else "failed",
        "stop_reason": result.stop_reason,
        "rounds": result.rounds,
        "rounds_to_target": progress.rounds_to_target,
        f"best_{run.rules.patience_metric}": progress.best,
        "best_round": progress.best_round,
        **({"test_loss": None, f"test_{parts.task.main_metric}": None} | result.test),
        **result.final,
        "clients": len(roster.nodes),
        "faults": dict(roster.faults),
        "supernodes": len(set(roster.nodes.values())),
        **run.record.totals,
        "seconds": run.seconds,
        "epsilon_max": run.record.epsilons[-1] if run.record.epsilons else None,
        "epsilon_median": run.record.epsilons[len(run.record.epsilons) // 2] if run.record.epsilons else None,
        "declined": len(roster.declined),
        **({"delivered": result.delivered} if config.federation.deliver else {}),
        "privacy": {**privacy, "delta": run.record.largest_delta} if privacy else None,
        "parameters": sum(parameter.numel() for parameter in parts.whole.parameters()),
        "parameters_trained": sum(p.numel() for p in parts.model.parameters() if p.requires_grad),
        "model_sha256": state_sha256(parts.whole.state_dict()),
        "task": config.task.name,
        "seed": config.run.seed,
        "versions": versions(),
    }


def show(directory: Path, summary: Mapping[str, Any]) -> None:
    """Write the report, and say where everything is and how it went."""
    from fedapp.report.page import write_report  # matplotlib takes a second to import: once the rounds are over

    report = write_report(directory)
    for name in summary:
        if name.startswith(
            ("status", "stop_reason", "rounds", "test_", "final_", "clients", "rejected", "delivered", "model_")
        ):
            log(INFO, "%-28s %s", name, summary[name])
    log(INFO, "report: %s", report)
    log(INFO, "run_dir=%s", directory)
