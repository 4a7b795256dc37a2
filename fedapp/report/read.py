"""Read a run directory: the only input of the report."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fedapp.common.errors import FedappError

__all__ = ["Record", "RunData", "number", "read_run"]

Record = Mapping[str, Any]


@dataclass(frozen=True)
class RunData:
    """The files of one run directory, parsed.

    `rounds`: the lines of metrics.jsonl, one a round, ascending. `clients`: the training lines of clients.jsonl.
    `final`: its lines of the final federated evaluation. `summary` is empty while there is no summary.json.
    """

    path: Path
    config: Record
    config_text: str
    rounds: tuple[Record, ...]
    clients: tuple[Record, ...]
    final: tuple[Record, ...]
    summary: Record


def read_run(run_dir: Path) -> RunData:
    """Load `run_dir`.

    config.yaml and metrics.jsonl must be there. clients.jsonl and summary.json may be missing: a run that was
    killed, or is still going, has no summary. Raises FedappError for a missing or malformed file.
    """
    run_dir = run_dir.resolve()
    if not run_dir.is_dir():
        raise FedappError(f"{run_dir}: not a directory; give the run directory that a run prints at its end")
    config_text = _text(run_dir / "config.yaml")
    clients = _json_lines(run_dir / "clients.jsonl") if (run_dir / "clients.jsonl").exists() else []
    # A run killed between writing a round and its checkpoint does the round again when resumed: the last one counts.
    rounds = {line["round"]: line for line in _json_lines(run_dir / "metrics.jsonl")}
    return RunData(
        path=run_dir,
        config=_config(run_dir / "config.yaml", config_text),
        config_text=config_text,
        rounds=tuple(rounds[index] for index in sorted(rounds)),
        clients=tuple(line for line in clients if line.get("phase") != "final"),
        final=tuple(line for line in clients if line.get("phase") == "final"),
        summary=_summary(run_dir / "summary.json"),
    )


def number(value: object) -> float | None:
    """`value` as a float, or None where it is no finite number: files may hold null, NaN or nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FedappError(f"{path}: missing, so {path.parent} is not a run directory") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FedappError(f"{path}: cannot be read: {error}") from error


def _config(path: Path, text: str) -> Record:
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise FedappError(f"{path}: not YAML: {error}") from error
    if not isinstance(config, dict):
        raise FedappError(f"{path}: holds a {type(config).__name__}, expected a mapping of sections")
    return config


def _summary(path: Path) -> Record:
    if not path.exists():
        return {}
    try:
        summary = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise FedappError(f"{path}: not JSON: {error}") from error
    if not isinstance(summary, dict):
        raise FedappError(f"{path}: holds a {type(summary).__name__}, expected an object")
    return summary


def _json_lines(path: Path) -> list[dict[str, Any]]:
    """Every line of `path`, each an object with a whole `round`.

    A last line that does not parse was torn when the process was killed, and is skipped; any other is an error.
    """
    try:
        raw = path.read_bytes().rstrip(b"\n")
    except FileNotFoundError:
        raise FedappError(f"{path}: missing, so {path.parent} is not a run directory") from None
    except OSError as error:
        raise FedappError(f"{path}: cannot be read: {error}") from error
    lines = raw.split(b"\n") if raw else []
    records = []
    for index, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError as error:  # also a UTF-8 character torn in two
            if index == len(lines):
                break
            raise FedappError(f"{path}: line {index} is not JSON: {error}") from error
        if not isinstance(record, dict) or type(record.get("round")) is not int:
            raise FedappError(f'{path}: line {index} is not an object with a whole number "round"')
        records.append(record)
    return records
