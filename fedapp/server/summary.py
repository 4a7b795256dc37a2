"""summary.json, the report, and what the server says at the end."""

from collections.abc import Mapping
from logging import INFO
from pathlib import Path
from typing import Any

from fedapp.common.logger import log
from fedapp.common.state_digest import state_sha256
from fedapp.privacy.server_budget import ServerBudget
from fedapp.server.check_config import Checked
from fedapp.server.ending import Result
from fedapp.server.population.roster import Roster
from fedapp.server.run_directory.versions import versions
from fedapp.server.training_run import TrainingRun

__all__ = ["said", "show", "summarise"]

SAID = ("status", "stop_reason", "rounds", "test_", "final_", "clients", "rejected", "delivered", "model_")


def summarise(
    checked: Checked, roster: Roster, run: TrainingRun, result: Result, budget: ServerBudget | None = None
) -> dict[str, Any]:
    """What summary.json holds. `budget`: what the server itself has spent of its clients' privacy. Of a secret cohort
    nothing is told that depends on who was in it, not even bytes."""
    config, parts, progress = checked.config, checked.parts, run.rules.progress
    epsilons, privacy = run.record.epsilons, checked.privacy.summary(config, parts)
    delta, secret = run.record.largest_delta, not checked.privacy.discloses_cohort
    if budget is not None and privacy is not None:
        facts = budget.facts()
        epsilons, delta, privacy = [facts.pop("epsilon_max")], facts.pop("delta"), {**privacy, **facts}
    hidden = dict.fromkeys((*run.record.totals, "clients", "faults", "bounded", "supernodes", "delivered"))
    return {
        "status": "finished" if result.failed is None else "failed",
        "stop_reason": result.stop_reason,
        "rounds": result.rounds,
        "rounds_to_target": progress.rounds_to_target,
        f"best_{run.rules.patience_metric}": progress.best,
        "best_round": progress.best_round,
        "result": config.federation.result,
        **({"test_loss": None, f"test_{parts.task.main_metric}": None} | result.test),
        **result.final,
        "clients": len(roster.nodes),
        "faults": dict(roster.faults),
        "bounded": roster.bounded,
        "warnings": run.record.warnings.texts(),
        "supernodes": len(set(roster.nodes.values())),
        **run.record.totals,
        "seconds": run.seconds,
        "epsilon_max": epsilons[-1] if epsilons else None,
        "epsilon_median": epsilons[len(epsilons) // 2] if epsilons else None,
        "declined": len(roster.declined),
        **({"delivered": result.delivered} if config.federation.deliver else {}),
        **(hidden if secret else {}),
        "privacy": {**privacy, "delta": delta} if privacy else None,
        "parameters": sum(parameter.numel() for parameter in parts.whole.parameters()),
        "parameters_trained": sum(p.numel() for p in parts.model.parameters() if p.requires_grad),
        "model_sha256": state_sha256(parts.whole.state_dict()),
        "exact": checked.protocol.exact,
        "lower_is_better": ["loss", *(name for name, metric in parts.task.metrics.items() if metric.lower_is_better)],
        "task": config.task.name,
        "seed": config.run.seed,
        "versions": versions(),
    }


def said(summary: Mapping[str, Any]) -> list[str]:
    """What of a summary is logged."""
    return [f"{name:<28} {summary[name]}" for name in summary if name.startswith(SAID)]


def show(directory: Path, summary: Mapping[str, Any]) -> None:
    """Write the report, and say where everything is and how it went."""
    from fedapp.report.page import write_report  # matplotlib takes a second to import: once the rounds are over

    report = write_report(directory)
    for line in said(summary):
        log(INFO, "%s", line)
    log(INFO, "report: %s", report)
    log(INFO, "run_dir=%s", directory)
