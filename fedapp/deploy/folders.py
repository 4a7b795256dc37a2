"""What lies where: a start-up folder per participant, with what that participant needs and nothing else.

    ca/           the authority's key and the register of participants; stays with whoever provisions
    superlink/    ca.crt, server.crt, server.key, superlink.toml, keys/<site>.pub
    operator/     ca.crt, operator.toml: for whoever starts runs
    <site>/       ca.crt, supernode.key, site.toml: for that site's SuperNode

`state/` in a participant's folder is made when it is started: Flower's files, and the SuperLink's database.
"""

import json
import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedapp.common.errors import ConfigError
from fedapp.common.files import write_atomically

__all__ = [
    "AUTHORITY",
    "Operator",
    "SiteFolder",
    "SuperLinkFolder",
    "make_private_file",
    "make_private_folder",
    "private_file",
    "read_operator",
    "read_site",
    "read_superlink",
    "write_private",
    "write_toml",
]

AUTHORITY = "ca.crt"


@dataclass(frozen=True)
class SuperLinkFolder:
    """A SuperLink's start-up folder. `port`: where SuperNodes connect; `control_port`: where runs are started, which is
    reached from this machine only."""

    folder: Path
    port: int
    control_port: int

    @property
    def authority(self) -> Path:
        return self.folder / AUTHORITY

    @property
    def certificate(self) -> Path:
        return self.folder / "server.crt"

    @property
    def key(self) -> Path:
        return self.folder / "server.key"

    @property
    def public_keys(self) -> Path:
        return self.folder / "keys"

    @property
    def signatures(self) -> Path:
        return self.folder / "signatures"


@dataclass(frozen=True)
class SiteFolder:
    """A SuperNode's start-up folder. `superlink`: host:port. `client`: its number in the federation's reports."""

    folder: Path
    name: str
    superlink: str
    client: int

    @property
    def authority(self) -> Path:
        return self.folder / AUTHORITY

    @property
    def key(self) -> Path:
        return self.folder / "supernode.key"


@dataclass(frozen=True)
class Operator:
    """The folder of whoever starts runs. `control`: host:port of the SuperLink's control interface."""

    folder: Path
    control: str

    @property
    def authority(self) -> Path:
        return self.folder / AUTHORITY


def read_superlink(folder: Path) -> SuperLinkFolder:
    """Raises ConfigError for a folder that is incomplete, or whose key others can read."""
    found = _read(folder, "superlink.toml", {"port": int, "control_port": int})
    made = SuperLinkFolder(folder, **found)
    private_file(made.key)
    return made


def read_site(folder: Path) -> SiteFolder:
    """Raises ConfigError for a folder that is incomplete, or whose key others can read."""
    made = SiteFolder(folder, **_read(folder, "site.toml", {"name": str, "superlink": str, "client": int}))
    private_file(made.key)
    return made


def read_operator(folder: Path) -> Operator:
    """Raises ConfigError for a folder that is incomplete."""
    return Operator(folder, **_read(folder, "operator.toml", {"control": str}))


def _read(folder: Path, name: str, keys: dict[str, type]) -> dict[str, Any]:
    file = folder / name
    if not file.is_file() or not (folder / AUTHORITY).is_file():
        raise ConfigError(f"--folder {folder}: holds no {name} and {AUTHORITY}; scripts/deploy/provision makes them")
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from None
    for key, kind in keys.items():
        if type(found.get(key)) is not kind:
            raise ConfigError(f"{file}: {key}={found.get(key)!r}: must be of type {kind.__name__}")
    return {key: found[key] for key in keys}


def private_file(path: Path) -> Path:
    """`path`, if it is a file that only its owner can read or write. Raises ConfigError."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; a private key is needed there") from None
    if mode & 0o077:
        raise ConfigError(f"{path}: others can read it (mode {mode:04o}); chmod 600 {path}")
    return path


def make_private_folder(path: Path) -> Path:
    """A folder that only its owner can enter, from the moment it is there; one that others can enter is closed to them.
    Raises ConfigError where that cannot be, as in another user's folder."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.stat()
    if stat.S_IMODE(found.st_mode) & 0o077:
        try:
            path.chmod(0o700)
        except OSError as error:
            raise ConfigError(
                f"{path}: others can enter it, and that cannot be changed ({error.strerror}); chmod 700"
            ) from None
    return path


def make_private_file(path: Path) -> Path:
    """A file, empty if it is new, that only its owner can read or write, whatever the umask of who opens it next."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)
    return path


def write_private(path: Path, content: bytes) -> None:
    """A file that only its owner can read or write, from the moment it is there; whole, or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)  # of an interrupted write: its mode would stay
    write_atomically(path, content, mode=0o600)


def write_toml(path: Path, comment: str, values: Mapping[str, bool | int | float | str]) -> None:
    """`values` as TOML, whose strings, numbers and booleans are JSON's."""
    lines = [f"# {comment}", *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())]
    write_atomically(path, ("\n".join(lines) + "\n").encode(), mode=0o600)
