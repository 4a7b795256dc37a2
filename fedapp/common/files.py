"""Files that are there whole, or as they were before."""

import os
from pathlib import Path

__all__ = ["sync_folder", "write_atomically"]


def write_atomically(path: Path, content: bytes, *, mode: int = 0o666, synced: bool = True) -> None:
    """Killed at any moment, the file is whole or as it was. Once this returns, `content` is on the disk if `synced`;
    if not, and the machine loses power, the file may be as it was, or empty."""
    partial = path.with_name(path.name + ".partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(content)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:  # as on a full disk
        partial.unlink(missing_ok=True)
        raise
    if synced:
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Once this returns, what files are called in this folder is on the disk."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
