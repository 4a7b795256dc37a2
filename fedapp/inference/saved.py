"""A finished run's model, rebuilt from two files: config.yaml and model.safetensors.

Neither the training data nor pretrained weights nor a network is needed, and nothing in the two files can run code.
"""

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedapp.common.errors import FedappError, ModelError
from fedapp.common.state_digest import state_sha256
from fedapp.config import instantiate, read_saved
from fedapp.data.source import DataSource, Schema, check_inputs
from fedapp.learning.build import build_model, build_source
from fedapp.learning.build_task import build_kind
from fedapp.learning.task import Task
from fedapp.models.weights import form_only, load_into, read_weights

__all__ = ["Predictor", "Saved", "is_vertical", "load_run", "said_in"]

BATCH = 64  # examples at once: large images must fit into memory


class Predictor(nn.Module):
    """Inputs (N, *input_shape) as the data source gives them to what `predictions` makes of the model's outputs: class
    probabilities (N, classes), or values (N, 1)."""

    def __init__(self, model: nn.Module, predictions: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.predictions = model, predictions

    def forward(self, x: Tensor) -> Tensor:
        return self.predictions(self.model(x))


@dataclass(frozen=True)
class Saved:
    """What a run left behind. `predictor` is in evaluation mode, `sha256` is its model's, as in summary.json."""

    source: DataSource
    task: Task
    predictor: Predictor
    sha256: str

    @property
    def schema(self) -> Schema:
        return self.task.schema

    @torch.no_grad()
    def predict(self, inputs: Tensor, name: str) -> Tensor:
        """The task's predictions (n, ...), such as probabilities (n, classes), on the CPU. Raises DataError, opening
        with `name`, for inputs that do not fit the schema."""
        return self._each(inputs, name, lambda _, predictions: predictions)

    @torch.no_grad()
    def tell(self, inputs: Tensor, name: str) -> Tensor:
        """The same, of what users are told."""
        return self._each(inputs, name, self.task.told)

    def _each(self, inputs: Tensor, name: str, keep: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        check_inputs(inputs, self.schema, name)
        device = next(self.predictor.parameters()).device
        chunks = torch.split(inputs, BATCH)
        return torch.cat([keep(chunk, self.predictor(chunk.to(device)).cpu()) for chunk in chunks])


def load_run(directory: Path, device: torch.device | str = "cpu", *, best: bool = False) -> Saved:
    """The model in `directory`: its result, or with `best` the best one of its rounds.

    Raises ModelError or ConfigError, naming the file, for what is no finished run, a model that does not fit its
    config.yaml or is not the one of its summary.json, and foreign code.
    """
    config, weights = _files(directory, "best.safetensors" if best else "model.safetensors")
    found = read_saved(config)
    whole = found.personal is None or instantiate("federation.personal", found.personal).whole
    if not whole and (directory / "summary.json").exists():
        raise ModelError(
            f"{directory}: is of a run with personal heads (federation.personal): its clients have their own, and"
            " this model has none that was trained. Use it on a device, with federation.deliver=true (models/latest in"
            " its keep-path)"
        )
    try:
        source = build_source(found.data)
        task = build_kind(found.kind, source.schema())
        with form_only():
            model = build_model(found.model, task)
    except FedappError as error:
        raise ModelError(f"{config}: {error}") from None
    load_into(model, read_weights(weights, key="model"), f"model={weights}")
    sha256 = state_sha256(model.state_dict())
    if not best:
        _check_same(directory / "summary.json", weights, sha256)
    predictor = Predictor(model, task.predictions)
    return Saved(source, task, predictor.eval().requires_grad_(False).to(device), sha256)


def _files(directory: Path, name: str) -> tuple[Path, Path]:
    if not directory.is_dir():
        what = "a file" if directory.exists() else "no such folder"
        raise ModelError(f"{directory}: {what}; give the run directory that a run prints at its end")
    config, weights = directory / "config.yaml", directory / name
    if not config.is_file():
        raise ModelError(f"{directory}: holds no run, there is no config.yaml; give the directory that a run prints")
    if not weights.is_file() and (directory / "model.safetensors").is_file():
        raise ModelError(
            f"{directory}: has no {name}: nobody had data to tell which of its models is the best; take its result"
        )
    if not weights.is_file() and is_vertical(directory):
        raise ModelError(
            f"{directory}: is of a vertical run (task=vertical): its model lies in parts with the parties, as"
            " part.safetensors"
        )
    if not weights.is_file():
        raise ModelError(
            f"{directory}: has no model.safetensors, since its run has not ended. Go on with it: python scripts/run.py"
            f" --resume {shlex.quote(str(directory.resolve()))}"
        )
    return config, weights


def is_vertical(directory: Path) -> bool:
    """Whether a run directory is of parties with different columns."""
    if (directory / "parties").is_dir():
        return True
    try:
        return "label_party" in json.loads((directory / "summary.json").read_text("utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def said_in(summary: Path) -> Mapping[str, Any] | None:
    """What a run's summary.json says; None where there is none. Raises ModelError."""
    if not summary.exists():
        return None
    try:
        found: Mapping[str, Any] = json.loads(summary.read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"it holds {type(found).__name__} in place of fields")
    except (OSError, ValueError) as error:
        raise ModelError(f"{summary}: cannot be read ({error}); restore it, or take the model without it") from None
    return found


def _check_same(summary: Path, weights: Path, found: str) -> None:
    """The model is the one that the summary speaks of, where there is a summary."""
    if (facts := said_in(summary)) is None:
        return
    if (said := facts.get("model_sha256")) != found:
        raise ModelError(
            f"model={weights}: is not the model of this run: its model_sha256 is {found}, summary.json says {said}."
            " It was changed or exchanged; copy both files from the run again"
        )
