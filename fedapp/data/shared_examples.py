"""Clients' examples that one process has loaded and split, mapped by others of the same machine: they exist once."""

import json
import mmap
import os
import tempfile
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from tempfile import NamedTemporaryFile

import torch
from torch import Tensor

from fedapp.data.shards import Shards
from fedapp.data.source import Examples

__all__ = ["anonymous_memory", "keep_shards", "share_shards", "take_kept", "take_shards"]

ALIGNMENT = 64  # bytes, as torch's own
SUFFIX = ".examples"
SPANS = ""  # the name under which spans lie beside the examples' fields


def anonymous_memory() -> int:
    """A descriptor of an empty file without a name, in memory where the system has that."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("fedapp")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def share_shards(shards: Shards) -> int:
    """A descriptor of anonymous memory that holds the examples of `shards`, which are loaded, and who owns which. It is
    the caller's to close. Raises FedappError if the data does not fit or cannot be split."""
    descriptor = anonymous_memory()
    try:
        _write(shards, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def keep_shards(shards: Shards, folder: Path, key: str) -> None:
    """The same as a file in `folder`, for processes that are no children of this one."""
    file = folder / f"{key}{SUFFIX}"
    if not file.exists():
        with NamedTemporaryFile(dir=folder, delete=False) as partial:
            _write(shards, partial.fileno())
        os.replace(partial.name, file)


def take_kept(shards: Shards, folder: Path, key: str) -> None:
    """Give `shards` what `keep_shards` has kept under this key, if it has."""
    with suppress(FileNotFoundError):
        take_shards(shards, os.open(folder / f"{key}{SUFFIX}", os.O_RDONLY))


def _write(shards: Shards, descriptor: int) -> None:
    pool, spans = shards.loaded()
    tensors = {SPANS: torch.tensor(spans, dtype=torch.int64)}
    values = {item.name: getattr(pool, item.name) for item in fields(pool)}
    tensors |= {name: value.contiguous() for name, value in values.items() if value is not None}
    layout, end = list[tuple[str, str, list[int], int]](), 0
    for name, value in tensors.items():
        start = -(-end // ALIGNMENT) * ALIGNMENT
        layout.append((name, str(value.dtype).removeprefix("torch."), list(value.shape), start))
        end = start + value.nbytes
    header = json.dumps(layout).encode()
    begin = -(-(8 + len(header)) // ALIGNMENT) * ALIGNMENT
    with open(descriptor, "wb", closefd=False) as memory:
        memory.write(len(header).to_bytes(8, "big") + header)
        for (*_, start), value in zip(layout, tensors.values(), strict=True):
            memory.seek(begin + start)
            memory.write(value.numpy().data)
        memory.truncate(max(begin + end, begin + 1))


def take_shards(shards: Shards, descriptor: int) -> None:
    """Give `shards` the examples that `share_shards` has written, without a copy; closes `descriptor`.

    Whoever writes to them writes to pages of its own.
    """
    size = os.fstat(descriptor).st_size
    memory = mmap.mmap(descriptor, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    os.close(descriptor)
    length = int.from_bytes(memory[:8], "big")
    begin = -(-(8 + length) // ALIGNMENT) * ALIGNMENT
    tensors = {
        name: _view(memory, begin + start, shape, getattr(torch, dtype))
        for name, dtype, shape, start in json.loads(memory[8 : 8 + length])
    }
    spans = [(int(start), int(middle), int(end)) for start, middle, end in tensors.pop(SPANS)]
    shards.adopt(Examples(**tensors), spans)


def _view(memory: mmap.mmap, start: int, shape: list[int], dtype: torch.dtype) -> Tensor:
    count = torch.Size(shape).numel()
    if not count:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(memory, dtype=dtype, count=count, offset=start).view(shape)
