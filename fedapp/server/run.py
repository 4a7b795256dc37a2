"""The server's run, from config to report, once through."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from logging import ERROR, INFO, WARNING
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context
from flwr.serverapp import Grid

from fedapp.aggregation.protocol import protocol_of
from fedapp.common.code_digest import check_bundle
from fedapp.common.errors import FedappError, FederationError
from fedapp.common.logger import log
from fedapp.config import Config, compose, split_overrides, to_yaml
from fedapp.data.features import features_of
from fedapp.data.findings import Findings
from fedapp.flower.simulation import is_own, is_simulated
from fedapp.learning.agreement import share_columns
from fedapp.learning.build import Parts
from fedapp.models.shared_state import buffer_names, load_shared, shared_state
from fedapp.models.weights import settled_arguments
from fedapp.privacy.option import privacy_of
from fedapp.privacy.server_budget import ServerBudget
from fedapp.server.asynchronous.client_speed import check_played, real_timeout
from fedapp.server.build import build_strategy, load_initial, output_directory
from fedapp.server.central_evaluation import CentralEvaluation
from fedapp.server.check_config import Checked, as_json, check_cohort, check_run, checkpoint_of
from fedapp.server.delivered_models import DeliveredModels
from fedapp.server.ending import Ending
from fedapp.server.exchange import Exchange
from fedapp.server.horizontal_rounds import HorizontalRounds
from fedapp.server.ledger_place import server_ledger
from fedapp.server.population.attendance import Attendance
from fedapp.server.population.joining import AdmissionRules
from fedapp.server.population.preflight import Population, preflight
from fedapp.server.population.roster import Roster
from fedapp.server.run_directory.claim import claim, writing
from fedapp.server.run_directory.lock import only_writer
from fedapp.server.run_directory.record import RunRecord
from fedapp.server.run_directory.resume import check_same_data, check_same_form
from fedapp.server.summary import show, summarise
from fedapp.server.training_run import OnRound, TrainingRun
from fedapp.server.vertical.vertical_run import CheckedParties, run_parties
from fedapp.tracking.tracker import about_run

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


def run_federation(
    grid: Grid,
    config: Config,
    directory: Path,
    start: float,
    overrides: Sequence[str] = (),
    *,
    checked: Checked | CheckedParties | None = None,
    on_round: OnRound = lambda metrics: None,
    show: Callable[[Path, dict[str, Any]], None] = show,
) -> None:
    """Preflight, rounds, report. Raises FedappError for whatever a person can mend.

    `checked`: what `check_config` has made of the config, if it was called before. `on_round` is called with the
    metrics of each round, `show` at the end with the summary.
    """
    checked = checked or check_run(config)
    if isinstance(checked, CheckedParties):
        run_parties(grid, checked, directory, start, overrides, on_round=on_round, show=show, as_json=as_json)
        return
    parts = checked.parts
    # What is wrong with either is said before anything starts.
    if (before := checkpoint_of(checked, directory, quiet=True)) is None:
        load_initial(config, parts)
    say(parts.source.findings())
    exchange, admission = Exchange(grid), admission_rules(config, parts)
    population = preflight(exchange, admission)
    for who, why in sorted(population.faults.items()):
        log(WARNING, "%s takes no part: %s", who, why)
    if config.run.initial_model is None:  # else it works with the constants that it has learnt with
        take_agreed(parts, population)
    check_cohort(checked, population.nodes.keys())
    simulated = is_own(grid) and bool(population.partitions)
    check_played(config, simulated=simulated)
    if simulated:
        checked.privacy.check_simulation(config, parts)
    alone = not simulated and not checked.privacy.discloses_cohort
    if alone:
        check_alone(population)
    budget = checked.privacy.server_budget(config, server_ledger(directory, simulated=simulated), lasts=not simulated)
    if budget is not None:
        budget.check(None if before is None else before.values.get("ledger", ""))
    rounds = build_rounds(checked, exchange, population, admission, budget, alone=alone)
    claim(directory, resume=config.run.resume is not None)
    with only_writer(directory), writing(directory):
        claim(directory, resume=config.run.resume is not None, held=True)  # another may have had it until now
        resumed = checkpoint_of(checked, directory)
        if resumed is not None:
            sealed = checked.protocol.sealed_sha256(resumed.model) is not None
            if not sealed:
                check_same_form(resumed, shared_state(parts.model))
        told = population.data.items() if checked.privacy.discloses_cohort else ()
        data = {f"client {client}": said for client, said in sorted(told)}
        data |= {"the server's test": checked.test.sha256()} if checked.test is not None else {}
        roster, saved = rounds.strategy.roster, None if resumed is None else resumed.values
        yaml = to_yaml(settled(config, parts))
        accounts = checked.privacy.server_accounts(config, parts, roster.num_examples)
        if accounts is not None and saved is not None:
            accounts.load(saved.get("trained", {}))
        trackers = checked.tracker.listeners(
            about_run(config, directory, len(roster.nodes), private=checked.privacy.spends)
        )
        record = RunRecord(directory, yaml, roster.num_examples, parts.task.metrics, saved, accounts, trackers)
        if resumed is not None:
            warnings = check_same_data(resumed, data, refuse=bool(population.partitions))
            record.warnings.add(warnings)
            for text in warnings.values():
                log(WARNING, "%s", text)
            data = resumed.values["data"] | data
        said = say(checked.privacy.foresight(config, parts))
        if resumed is None:
            record.warnings.add({f"privacy {number}": text for number, text in enumerate(said)})
        log(INFO, "run directory: %s", directory)
        rounds.summary()
        run = TrainingRun(
            rounds,
            record,
            checked.rules,
            Ending(config.federation.final_evaluation, config.federation.deliver, config.federation.result == "best"),
            checkpoint_every=config.run.checkpoint_every,
            about={"config": as_json(config), "overrides": list(overrides), "data": data},
            start=start,
            on_round=on_round,
        )
        rounds.attach(record.add_arrivals, run.save)
        try:
            result = run.run(resumed)
        finally:
            exchange.close()
        if checked.protocol.model_at_server and result.best is not None:
            load_shared(parts.model, result.best)
            record.keep_best(parts.whole.state_dict())
        if checked.protocol.model_at_server:
            load_shared(parts.model, result.state)
            summary = {**summarise(checked, roster, run, result, budget), **rounds.facts()}
            summary |= rounds.central.details(result.state)
            record.finish(summary, parts.whole.state_dict())
        else:  # what was loaded here is the first model, which is public
            sha256 = checked.protocol.sealed_sha256(result.state)
            summary = {**summarise(checked, roster, run, result, budget), "model_sha256": sha256}
            record.finish(summary, None)
        show(directory, summary)
    if result.failed is not None:
        raise FederationError(result.failed)


def check_alone(population: Population) -> None:
    """Raise FederationError for a SuperNode with several clients, whose updates come as one sum: by what it sends, one
    of them could take the others out of it, and move it by more than its own norm."""
    for node, count in Counter(population.nodes.values()).items():
        if count > 1:
            raise FederationError(
                f"privacy=client_dp: SuperNode {node} hosts {count} clients; outside a simulation each client needs a"
                " SuperNode of its own"
            )


def say(found: Findings) -> tuple[str, ...]:
    """Log what was found, and return the warnings."""
    for level, lines in ((INFO, found.facts), (WARNING, found.warnings)):
        for line in lines:
            log(level, "%s", line)
    return found.warnings


def admission_rules(config: Config, parts: Parts) -> AdmissionRules:
    federation = config.federation
    return AdmissionRules(
        num_clients=federation.num_clients,
        min_clients=federation.min_clients,
        min_supernodes=federation.min_supernodes,
        wait_timeout=federation.wait_timeout,
        reply_timeout=real_timeout(config),
        backbone=parts.backbone,
        features=sum(agreement.width for agreement in parts.task.agreements),
        shares=share_columns(parts.task.agreements),
        weight_bound=config.strategy.weight_bound,
        helpers=protocol_of(config).helper_sites,
        says_numbers=privacy_of(config).discloses_cohort,
    )


def build_rounds(
    checked: Checked,
    exchange: Exchange,
    population: Population,
    admission: AdmissionRules,
    budget: ServerBudget | None = None,
    *,
    alone: bool,
) -> HorizontalRounds:
    """`budget`: of the server itself. `alone`: as of `Roster`. Raises FederationError where fewer clients can take part
    than a round needs."""
    federation, parts = checked.config.federation, checked.parts
    roster = Roster(
        population,
        exclude_after=federation.exclude_after,
        exclude_rounds=federation.exclude_rounds,
        movable=is_simulated(exchange.grid)
        and 0 < population.partitions < federation.num_clients
        and keeps_nothing(checked),
        alone=alone,
    )
    strategy = build_strategy(checked.config, parts, roster, checked.protocol, checked.steps, budget)
    attendance = Attendance(exchange, roster, population, replace(admission, min_clients=strategy.min_clients))
    exchange.payload_bytes = checked.protocol.reply_bytes(parts)
    test = checked.test
    test = test if test is None or parts.frozen is None else features_of(parts.frozen, test)
    central = CentralEvaluation(
        parts.task, parts.model, test, every=federation.evaluate_every, rounds=federation.num_rounds
    )
    arguments = (exchange, attendance, strategy, parts.task, central, real_timeout(checked.config))
    rounds = checked.rounds.build(checked.config, parts, checked.steps, arguments)
    codec = checked.downlink.codec(buffer_names(parts.model))
    if codec is not None:
        rounds.deliver_by(DeliveredModels(codec, checked.config.run.seed))
    return rounds


def keeps_nothing(checked: Checked) -> bool:
    """Whether clients leave nothing on the SuperNode that does their work: no head, account, secret or features."""
    parts = checked.parts
    stored = checked.protocol.keeps_state or checked.privacy.spends or checked.steps.keeps_state
    return not stored and parts.is_whole and parts.personal.own is None and parts.frozen is None


def settled(config: Config, parts: Parts) -> Config:
    """The config with what was found in data and weights written out, so that the model can be used without them."""
    data, model = {**config.data, **parts.source.settled()}, {**config.model, **settled_arguments(parts.whole)}
    return replace(config, data=data, model=model)


def take_agreed(parts: Parts, population: Population) -> None:
    """Put the constants that the federation has agreed on into the model; from there they travel with it."""
    if population.mean is None or population.std is None:
        return
    widths = [agreement.width for agreement in parts.task.agreements]
    columns = zip(torch.split(population.mean, widths), torch.split(population.std, widths), strict=True)
    for agreement, (mean, std) in zip(parts.task.agreements, columns, strict=True):
        agreement.take(parts.whole, mean, std)
