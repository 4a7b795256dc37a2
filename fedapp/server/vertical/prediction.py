"""A short run in which parties predict new rows by the parts that they have kept. The server passes on what is sealed,
and learns how many rows there are."""

import time
from collections.abc import Callable
from logging import INFO
from pathlib import Path
from typing import Any

from fedapp.common.errors import FederationError
from fedapp.common.logger import log
from fedapp.config import Config, to_yaml
from fedapp.server.exchange import Exchange
from fedapp.server.run_directory.claim import claim, writing
from fedapp.server.run_directory.lock import only_writer
from fedapp.server.run_directory.record import RunRecord
from fedapp.server.run_directory.versions import versions
from fedapp.server.vertical.join import JoinRules, join
from fedapp.vertical.vertical_options import VerticalOptions

__all__ = ["predict_parties"]


def predict_parties(
    exchange: Exchange,
    config: Config,
    options: VerticalOptions,
    rules: JoinRules,
    directory: Path,
    start: float,
    show: Callable[[Path, dict[str, Any]], None],
) -> None:
    """Match the new rows, embed them, predict at the label party. Raises FederationError where a party cannot."""
    claim(directory, resume=False)
    with only_writer(directory), writing(directory):
        claim(directory, resume=False, held=True)
        joined = join(exchange, rules)
        relay = joined.relay
        relay.ask("embed", relay.view.others)
        (answer,) = relay.ask("predict", [options.label_party]).values()
        if (predicted := answer.figures.get("predicted")) != joined.test:
            raise FederationError(f"party {options.label_party}: predicted {predicted} of {joined.test} entities")
        log(INFO, "%d predictions, at %s alone: in its keep-path", joined.test, options.label_party)
        traffic, parties = relay.traffic.take(), relay.view.parties
        record = RunRecord(directory, to_yaml(config), {party.client: party.rows for party in parties}, {}, None)
        record.warnings.add(joined.warnings)
        summary = {
            "status": "finished",
            "stop_reason": "predicted",
            "rounds": 0,
            "predicted": joined.test,
            "predicted_by": config.vertical.predict,
            "clients": len(parties),
            "label_party": options.label_party,
            "parties": {
                party.name: {
                    "labels": party.labels,
                    "columns": party.columns,
                    "rows": party.rows,
                    "matched": joined.test if party.labels else joined.matched[party.name],
                    "parameters": joined.parameters[party.name],
                    "bytes_down": traffic.down.get(party.name, 0),
                    "bytes_up": traffic.up.get(party.name, 0),
                }
                for party in parties
            },
            "warnings": record.warnings.texts(),
            "bytes_up": sum(traffic.up.values()),
            "bytes_down": sum(traffic.down.values()),
            "seconds": time.perf_counter() - start,
            "task": config.task.name,
            "seed": config.run.seed,
            "versions": versions(),
        }
        for name in ("metrics.jsonl", "clients.jsonl"):  # of no round; the report reads them
            (directory / name).touch()
        record.finish(summary, None)
        show(directory, summary)
