"""Splits that one process has made and the others of the same run read: making one imports what takes seconds.

The folder for them is named by the environment (`FEDAPP_SPLITS`): it concerns the processes of one machine, and no
run's result. scripts/run.py makes one for each of its calls and removes it at the end. Without one, or with one that is
on another machine, every process makes the split for itself, and gets the same.
"""

import json
import os
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

__all__ = ["SPLITS", "Rows", "kept_split", "split_key", "splits_folder"]

SPLITS = "FEDAPP_SPLITS"

Rows = NDArray[np.int64]  # that one client owns


def splits_folder() -> Path | None:
    """The folder that the environment names, if it is there."""
    folder = os.environ.get(SPLITS)
    return Path(folder) if folder and Path(folder).is_dir() else None


def split_key(settings: Mapping[str, Any], columns: Mapping[str, Any]) -> str:
    """SHA-256 of whatever a split depends on: its settings, and the columns (n,) that a partitioner can see."""
    digest = sha256(json.dumps(settings, sort_keys=True).encode())
    for name, values in columns.items():
        array = np.asarray(values)
        content = array.tobytes() if array.dtype != object else json.dumps([str(value) for value in array]).encode()
        digest.update(f"{name}\0{array.dtype}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def kept_split(folder: Path, key: str, make: Callable[[], list[Rows]]) -> list[Rows]:
    """The split kept under `key` in `folder`, or else the one that `make` makes, which is then kept there.

    Two processes may keep the same one at the same time.
    """
    file = folder / f"{key}.safetensors"
    if file.exists():
        kept = load_file(file)
        return np.split(kept["rows"], np.cumsum(kept["sizes"])[:-1])
    owners = make()
    sizes = np.array([len(rows) for rows in owners])
    with NamedTemporaryFile(dir=folder, delete=False) as partial:
        partial.write(save({"rows": np.concatenate(owners), "sizes": sizes}))
    os.replace(partial.name, file)
    return owners
