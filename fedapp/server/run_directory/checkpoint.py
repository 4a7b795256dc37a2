"""Checkpoints: the whole server state after a round in one file, written whole or not at all.

A file is a safetensors archive `checkpoint/round-00012.safetensors`: the global model under `model/`, the best one so
far under `best/` where it is another, the server optimizer's tensors under `optimizer/`, those of the procedure under
`procedure/`, and all else as JSON in the header, with a SHA-256 over everything. Nothing in it is executed on loading.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fedapp.common.errors import FederationError
from fedapp.common.files import write_atomically
from fedapp.common.run_paths import KEPT
from fedapp.common.state_digest import state_sha256

__all__ = ["Checkpoint", "checkpoint_files", "load_checkpoint", "save_checkpoint"]

FORMAT = 6
NAME = re.compile(r"round-(\d+)\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """The server after `server_round`. `optimizer` is a torch state dict, `values` and `config` are JSON. `best`: the
    best model so far; empty where it is `model`, or there is none. `tensors`: what else the procedure has."""

    server_round: int
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    values: Mapping[str, Any]
    config: Mapping[str, Any]
    best: Mapping[str, Tensor] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint into `directory`; older ones but the last go."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors, slots = _optimizer_tensors(checkpoint.optimizer)
    tensors |= {f"model/{name}": value.detach().cpu().contiguous() for name, value in checkpoint.model.items()}
    # Copies: what no round has changed, such as a count of batches, is one tensor in both models.
    for kind, state in (("best", checkpoint.best), ("procedure", checkpoint.tensors)):
        tensors |= {f"{kind}/{name}": value.detach().cpu().clone().contiguous() for name, value in state.items()}
    header = json.dumps(
        {
            "format": FORMAT,
            "round": checkpoint.server_round,
            "optimizer": slots,
            "values": checkpoint.values,
            "config": checkpoint.config,
        }
    )
    content = save(tensors, {"fedapp": header, "sha256": _digest(header, tensors)})
    path = directory / f"round-{checkpoint.server_round:05d}.safetensors"
    write_atomically(path, content)
    files = checkpoint_files(directory)
    newest = files.index(path)  # those before it in the list are of rounds that were done over
    for other in files[:newest] + files[newest + KEPT :]:
        other.unlink(missing_ok=True)
    return path


def checkpoint_files(directory: Path) -> list[Path]:
    """Checkpoints in `directory`, the newest round first."""
    found = {int(match[1]): path for path in directory.glob("*") if (match := NAME.fullmatch(path.name))}
    return [found[server_round] for server_round in sorted(found, reverse=True)]


def load_checkpoint(path: Path) -> Checkpoint:
    """Raises FederationError, naming the reason, for a file that is torn, changed, or no checkpoint of this program."""
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    except FileNotFoundError:
        raise FederationError(f"{path}: there is no such checkpoint") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise FederationError(f"{path}: is damaged, or no checkpoint: {error}") from None
    header = about.get("fedapp")
    if header is None:
        raise FederationError(f"{path}: is no checkpoint of fedapp: its header is missing")
    if about.get("sha256") != _digest(header, tensors):
        raise FederationError(f"{path}: is damaged: its content does not have the SHA-256 that it was written with")
    found = json.loads(header)
    if found["format"] != FORMAT:
        raise FederationError(f"{path}: has format {found['format']}, this version reads format {FORMAT}")
    return Checkpoint(
        server_round=int(found["round"]),
        model=_of("model/", tensors),
        optimizer=_optimizer_state(found["optimizer"], tensors),
        values=found["values"],
        config=found["config"],
        best=_of("best/", tensors),
        tensors=_of("procedure/", tensors),
    )


def _of(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(kind): value for name, value in tensors.items() if name.startswith(kind)}


def _digest(header: str, tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256(f"{header}{state_sha256(tensors)}".encode()).hexdigest()


def _optimizer_tensors(saved: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of an optimizer's state dict, and the rest of it as JSON."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for index, slots in saved.get("state", {}).items():
        numbers[str(index)] = {}
        for name, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{name}"] = value.detach().cpu().contiguous()
            else:
                numbers[str(index)][name] = value
    return tensors, {"numbers": numbers, "groups": saved.get("param_groups", [])}


def _optimizer_state(slots: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The inverse of `_optimizer_tensors`."""
    if not slots["groups"]:
        return {}
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in slots["numbers"].items()}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/", 2)
            state[int(index)][name] = torch.clone(value)
    groups = [{key: tuple(v) if key == "betas" else v for key, v in group.items()} for group in slots["groups"]]
    return {"state": state, "param_groups": groups}
