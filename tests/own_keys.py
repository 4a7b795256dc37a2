"""Devices with keys of their own: their files, and what their node-configs say of them."""

from pathlib import Path
from typing import Any

from fedapp.common.device_keys import public_line
from fedapp.deploy.identity import new_supernode_key

__all__ = ["node_configs", "write_keys"]


def write_keys(folder: Path, count: int) -> Path:
    """Private keys in device-N, and the public keys, bound to client N, in keys/N.pub."""
    (folder / "keys").mkdir(parents=True)
    for number in range(count):
        private, public = new_supernode_key()
        (folder / f"device-{number}").write_bytes(private)
        (folder / "keys" / f"{number}.pub").write_bytes(public_line(public.decode(), number))
    return folder


def node_configs(folder: Path, count: int) -> list[dict[str, Any]]:
    """Of devices that pin each other, with parts of the task's own data."""
    return [
        {
            "partition-id": number,
            "num-partitions": count,
            "signing-key": str(folder / f"device-{number}"),
            "peers": str(folder / "keys"),
        }
        for number in range(count)
    ]
