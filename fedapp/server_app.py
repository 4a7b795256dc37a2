"""The ServerApp: from config to report, once through."""

import time
from collections.abc import Mapping
from datetime import datetime
from logging import ERROR, INFO, WARNING
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from fedapp.build import Parts, build_parts, build_strategy, check_server_optimizer, output_directory
from fedapp.code_identity import check_bundle
from fedapp.config import Config, compose, split_overrides, to_yaml
from fedapp.errors import ConfigError, FedappError, FederationError
from fedapp.federation.loop import Federation, Result
from fedapp.federation.preflight import Population, preflight
from fedapp.federation.record import RunRecord, versions
from fedapp.federation.stopping import StopRules
from fedapp.fingerprint import state_sha256
from fedapp.models.input_layer import InputLayer

__all__ = ["app"]

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation that the run-config's `overrides` describe. Every refusal is said in one message."""
    start = time.perf_counter()
    try:
        check_bundle(grid.run.fab_hash)
        config = compose(split_overrides(str(context.run_config["overrides"])))
        default = Path.home() / "fedapp-runs" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{context.run_id}"
        run_federation(grid, config, output_directory(config, default), start)
    except FedappError as error:
        log(ERROR, "fedapp: %s", error)
        raise


def run_federation(grid: Grid, config: Config, directory: Path, start: float) -> None:
    """Preflight, rounds, report. Raises FedappError for whatever a person can mend."""
    check_server_optimizer(config)
    parts = build_parts(config)
    test = parts.source.test()
    if test is not None:
        test.check(parts.task.schema, "the server's test data")
    federation = config.federation
    if test is None and not config.train.val_fraction and (federation.patience or federation.target_accuracy):
        raise ConfigError(
            "federation.patience, federation.target_accuracy: nobody has data to judge the model by. Set"
            " train.val_fraction, or give the server test data"
        )
    population = preflight(
        grid,
        min_supernodes=federation.min_supernodes,
        wait_timeout=federation.wait_timeout,
        timeout=federation.round_timeout,
        min_clients=federation.min_clients,
    )
    for who, why in sorted(population.faults.items()):
        log(WARNING, "%s takes no part: %s", who, why)
    agree_on_scaling(parts, population)
    record = RunRecord(directory, to_yaml(config), population.num_examples, parts.task.main_metric)
    log(INFO, "run directory: %s", directory)
    strategy = build_strategy(config, parts, population)
    strategy.summary()
    rules = StopRules(federation.target_accuracy, federation.patience, federation.max_failed_rounds)
    result = Federation(
        grid=grid,
        strategy=strategy,
        task=parts.task,
        model=parts.model,
        test=test,
        record=record,
        rules=rules,
        num_rounds=federation.num_rounds,
        round_timeout=federation.round_timeout,
        final_evaluation=federation.final_evaluation,
    ).run()
    summary = summarise(config, parts, population, record, result, rules, time.perf_counter() - start)
    record.finish(summary, result.state)
    show(directory, summary)
    if result.failed is not None:
        raise FederationError(result.failed)


def agree_on_scaling(parts: Parts, population: Population) -> None:
    """Put the federation's scaling constants into the model's input layer; from there they travel with the model."""
    layer = parts.model.get_submodule("input")
    if population.mean is not None and population.std is not None and isinstance(layer, InputLayer):
        layer.set_statistics(population.mean, population.std)


def summarise(
    config: Config,
    parts: Parts,
    population: Population,
    record: RunRecord,
    result: Result,
    rules: StopRules,
    seconds: float,
) -> dict[str, Any]:
    """What summary.json holds."""
    return {
        "status": "finished" if result.failed is None else "failed",
        "stop_reason": result.stop_reason,
        "rounds": result.rounds,
        "rounds_to_target": rules.rounds_to_target,
        **({"test_loss": None, f"test_{parts.task.main_metric}": None} | result.test),
        **result.final,
        "clients": len(population.nodes),
        "faults": dict(population.faults),
        "supernodes": len(set(population.nodes.values())),
        **record.totals,
        "seconds": seconds,
        "epsilon_max": None,
        "parameters": sum(parameter.numel() for parameter in parts.model.parameters()),
        "model_sha256": state_sha256(result.state),
        "task": config.task.name,
        "seed": config.run.seed,
        "versions": versions(),
    }


def show(directory: Path, summary: Mapping[str, Any]) -> None:
    """Write the report, and say where everything is and how it went."""
    from fedapp.report.page import write_report  # matplotlib takes a second to import: once the rounds are over

    report = write_report(directory)
    for name in summary:
        if name.startswith(("status", "stop_reason", "rounds", "test_", "final_", "clients", "rejected", "model_")):
            log(INFO, "%-28s %s", name, summary[name])
    log(INFO, "report: %s", report)
    log(INFO, "run_dir=%s", directory)
