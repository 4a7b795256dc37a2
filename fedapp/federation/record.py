"""The run directory: what a run leaves behind, written as it goes."""

import json
import math
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file
from torch import Tensor

from fedapp.errors import ConfigError
from fedapp.federation.outcome import RoundOutcome
from fedapp.wire.rounds import ClientReport

if TYPE_CHECKING:
    from fedapp.report.tensorboard import EventWriter

__all__ = ["RunRecord", "versions"]

PACKAGES = ("fedapp", "flwr", "torch", "torchvision", "hydra-core", "opacus", "flwr-datasets", "numpy")


def versions() -> dict[str, str]:
    """Installed versions of what a result depends on; fedapp's own is absent where only its bundle is there."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except ModuleNotFoundError:
            continue
    return found


def claim(directory: Path) -> None:
    """Make `directory` a run's own. Raises ConfigError if it cannot be written or already holds a run."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if (directory / "metrics.jsonl").exists():
            raise ConfigError(f"run.output_dir={directory}: already holds a run; choose another directory")
        probe = directory / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"run.output_dir={directory}: cannot be written ({error.strerror}); choose a directory of your own"
        ) from None


class RunRecord:
    """Writes config.yaml, metrics.jsonl, clients.jsonl, TensorBoard events, model.safetensors and summary.json.

    Lines are flushed one by one: after a crash everything up to the last round is there.
    """

    def __init__(self, directory: Path, config_yaml: str, num_examples: Mapping[int, int], main_metric: str) -> None:
        self.directory, self._num_examples, self._main_metric = directory, num_examples, main_metric
        self.totals = {"bytes_up": 0, "bytes_down": 0, "rejected": 0}
        claim(directory)
        (directory / "config.yaml").write_text(config_yaml, encoding="utf-8")
        self._events: EventWriter | None = None

    def add_round(self, figures: Mapping[str, float | int | None], outcome: RoundOutcome | None) -> None:
        """A line of metrics.jsonl, and one of clients.jsonl for every client asked."""
        if outcome is not None:
            for name in self.totals:
                self.totals[name] += getattr(outcome, name)
            rows = [
                self._row(outcome.server_round, outcome.reports[client], outcome.weights[client])
                for client in sorted(outcome.reports)
            ]
            rows += [{"round": outcome.server_round, "client": None, "rejected": stray} for stray in outcome.strays]
            self._append("clients.jsonl", rows)
        self._append("metrics.jsonl", [figures])
        if self._events is None:
            from fedapp.report.tensorboard import EventWriter  # 1 s to import: after the first round's messages

            self._events = EventWriter(self.directory / "tensorboard")
        self._events.add_round(figures)

    def add_final(self, outcome: RoundOutcome) -> None:
        """The final federated evaluation, one line of clients.jsonl for every client."""
        for name in self.totals:
            self.totals[name] += getattr(outcome, name)
        rows = [self._row(outcome.server_round, outcome.reports[client], None) for client in sorted(outcome.reports)]
        self._append("clients.jsonl", [{"phase": "final", **row} for row in rows])

    def finish(self, summary: Mapping[str, Any], state: Mapping[str, Tensor] | None) -> None:
        """model.safetensors (where there is a model) and summary.json, each whole or not at all."""
        if self._events is not None:
            self._events.close()
        if state is not None:
            partial = self.directory / "model.safetensors.partial"
            save_file({name: value.contiguous() for name, value in state.items()}, partial)
            os.replace(partial, self.directory / "model.safetensors")
        partial = self.directory / "summary.json.partial"
        partial.write_text(json.dumps(_plain(summary), indent=2) + "\n", encoding="utf-8")
        os.replace(partial, self.directory / "summary.json")

    def _row(self, server_round: int, report: ClientReport, weight: float | None) -> dict[str, Any]:
        return {
            "round": server_round,
            "client": report.client,
            "num_examples": self._num_examples[report.client],
            "weight": weight,
            "steps": report.steps,
            "seconds": report.seconds,
            "rejected": report.rejected,
            "train_loss": report.train_loss,
            "val_examples": report.val_examples,
            "val_loss": report.val_loss,
            f"val_{self._main_metric}": report.val_metric,
        }

    def _append(self, name: str, rows: list[Any]) -> None:
        with (self.directory / name).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(_plain(row)) + "\n" for row in rows)


def _plain(value: Any) -> Any:
    """`value` as strict JSON has it: figures that are not finite become null."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
