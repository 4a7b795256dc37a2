"""The federation's register, and what is done to it: set up, add, renew, revoke. Each step can be done again."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path

from fedapp.common.device_keys import public_line
from fedapp.common.errors import ConfigError
from fedapp.common.files import write_atomically
from fedapp.deploy.folders import AUTHORITY, make_private_folder, write_private, write_toml
from fedapp.deploy.identity import (
    check_host,
    new_authority,
    new_server_certificate,
    new_supernode_key,
    public_key_of,
)
from fedapp.deploy.only_one import is_running

__all__ = ["RESERVED", "Participant", "Register"]

RESERVED = ("ca", "superlink", "operator")
ALWAYS = ("localhost", "127.0.0.1")  # the control interface, and ServerApps, are reached there
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass
class Participant:
    """A site: its client number, and its public key in OpenSSH's format. A revoked one has no key that counts."""

    client: int
    public_key: str
    revoked: bool = False

    @property
    def line(self) -> bytes:
        """Of a file *.pub: the key, bound to the client's number."""
        return public_line(self.public_key, self.client)


@dataclass
class Register:
    """All of a federation's folders under `root`. `hosts`: the SuperLink's names and addresses."""

    root: Path
    hosts: list[str] = field(default_factory=list)
    port: int = 8443
    control_port: int = 8444
    participants: dict[str, Participant] = field(default_factory=dict)
    server_made: bool = False  # its folder may have been moved to where it is needed
    todo: list[str] = field(default_factory=list)  # what whoever calls must still do for this call's changes to count
    undone: bool = False  # an old key counts until that is done

    @classmethod
    def load(cls, root: Path) -> "Register":
        """The federation at `root`; an empty one where there is none yet. Raises ConfigError for a damaged register."""
        file = root / "ca" / "federation.json"
        if not file.exists():
            return cls(root)
        try:
            saved = json.loads(file.read_text(encoding="utf-8"))
            participants = {name: Participant(**item) for name, item in saved.pop("participants").items()}
            return cls(root, participants=participants, **saved)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"{file}: damaged ({error}); restore it from a backup") from None

    @property
    def exists(self) -> bool:
        return (self.root / "ca" / "ca.key").exists()

    def set_up(self, hosts: Sequence[str], lifetime: timedelta) -> None:
        """Authority, SuperLink and operator, as far as they are not there yet. Raises ConfigError for other hosts."""
        wanted = [check_host(host) for host in hosts]
        if not self.exists:
            if not wanted:
                raise ConfigError(
                    "--host: a new federation needs the name or address at which SuperNodes reach the SuperLink"
                )
            make_private_folder(self.root)
            make_private_folder(self.root / "ca")
            key, certificate = new_authority()
            write_atomically(self.root / "ca" / AUTHORITY, certificate)
            self.hosts = wanted
            self._save()
            write_private(self.root / "ca" / "ca.key", key)  # last: with it the federation is there
        elif wanted and wanted != self.hosts:
            raise ConfigError(
                f"--host {' '.join(wanted)}: the SuperLink's certificate is for {' '.join(self.hosts)}; to change it,"
                " add --renew superlink"
            )
        if not self.server_made:
            self.renew_server(lifetime)
        self._make_operator()

    def renew_server(self, lifetime: timedelta, hosts: Sequence[str] = ()) -> None:
        """A new key and certificate for the SuperLink, at other `hosts` if some are given."""
        before = self._address() if self.hosts else None
        if hosts:
            self.hosts = [check_host(host) for host in hosts]
        folder = make_private_folder(self.root / "superlink")
        names = list(dict.fromkeys([*self.hosts, *ALWAYS]))
        key, certificate = new_server_certificate(
            (self.root / "ca" / "ca.key").read_bytes(), self._authority(), names, lifetime
        )
        write_private(folder / "server.key", key)
        write_atomically(folder / "server.crt", certificate)
        write_atomically(folder / AUTHORITY, self._authority())
        ports: dict[str, str | int] = {"port": self.port, "control_port": self.control_port}
        write_toml(
            folder / "superlink.toml", "SuperNodes connect to port; control_port is for this machine only", ports
        )
        make_private_folder(folder / "keys")
        for name in self.participants:
            self._publish(name)
        self.server_made = True
        self._save()
        if before not in (None, self._address()):
            self._move_sites()

    def _move_sites(self) -> None:
        """Sites' folders name the SuperLink's address: write the new one into those that are here."""
        line, here, away = f'superlink = "{self._address()}"', list[str](), list[str]()
        for name, participant in self.participants.items():
            if (self.root / name / "site.toml").is_file():
                self._write_site(name, participant.client)
                here.append(name)
            elif not participant.revoked:
                away.append(name)
        if here:
            self.todo.append(f"site.toml of {', '.join(here)} now has {line}: replace it where a site has a copy")
        if away:
            self.todo.append(f"the folders of {', '.join(away)} are not here: set {line} in their site.toml")

    def add(self, name: str) -> bool:
        """A start-up folder for a new site; False where the site is there already. Raises ConfigError."""
        self.check_name(name)
        if name in self.participants:
            self._publish(name)
            return False
        self._make_site(name, max((item.client for item in self.participants.values()), default=-1) + 1)
        return True

    def check_name(self, name: str) -> None:
        """Raises ConfigError for a name that cannot be added."""
        if not NAME.fullmatch(name) or name in RESERVED:
            raise ConfigError(f"--site {name}: must be letters, digits, '.', '_' or '-', and none of {RESERVED}")
        if name in self.participants and self.participants[name].revoked:
            raise ConfigError(f"--site {name}: was revoked; --renew {name} gives it a new key and lets it in again")

    def renew(self, name: str) -> None:
        """A new key for a site, which counts from now on; the old one does not."""
        self._make_site(name, self._known(name).client, anew=True)
        self._say_where(f"put superlink/keys/{name}.pub into its keys/, in place of the old key", name)

    def revoke(self, name: str) -> None:
        """From now on the site's key does not count."""
        self._known(name).revoked = True
        self._save()
        self._publish(name)
        self._say_where(f"delete {name}.pub from its keys/", name)

    def _say_where(self, what: str, name: str) -> None:
        """Say what must be done where the SuperLink runs from another folder than this federation's, or may do so."""
        folder = self.root / "superlink"
        if is_running(folder / "state"):
            return
        if (folder / "superlink.toml").is_file():
            self.todo.append(
                f"no SuperLink is running from {folder}: if one runs from a copy of it, the old key of {name} counts"
                f" until you {what} there"
            )
            return
        self.undone = True
        self.todo.append(
            f"the SuperLink's folder is not at {folder}: the old key of {name} STILL COUNTS until you {what}, on the"
            " SuperLink's machine"
        )

    def _known(self, name: str) -> Participant:
        if name not in self.participants:
            raise ConfigError(f"{name}: no such site; there are {', '.join(self.participants) or 'none'}")
        return self.participants[name]

    def _make_site(self, name: str, client: int, *, anew: bool = False) -> None:
        folder = make_private_folder(self.root / name)
        file = folder / "supernode.key"
        if file.exists() and not anew:  # of a call that was interrupted
            public = public_key_of(file.read_bytes())
        else:
            private, public = new_supernode_key()
            write_private(file, private)
        write_atomically(folder / AUTHORITY, self._authority())
        self._write_site(name, client)
        self.participants[name] = Participant(client, public.decode().strip())
        write_atomically(folder / f"{name}.pub", self.participants[name].line)  # for the site to give to other sites
        self._save()
        self._publish(name)

    def _write_site(self, name: str, client: int) -> None:
        settings: dict[str, str | int] = {"name": name, "superlink": self._address(), "client": client}
        comment = "Where this SuperNode connects, and who it is there"
        write_toml(self.root / name / "site.toml", comment, settings)

    def _make_operator(self) -> None:
        folder = self.root / "operator"
        if not folder.exists():
            make_private_folder(folder)
            write_atomically(folder / AUTHORITY, self._authority())
            comment = "From another machine, forward this port: ssh -N -L PORT:127.0.0.1:PORT <the SuperLink's machine>"
            comment = comment.replace("PORT", str(self.control_port))
            write_toml(folder / "operator.toml", comment, {"control": f"127.0.0.1:{self.control_port}"})

    def _publish(self, name: str) -> None:
        """Make the SuperLink's folder say whether this site's key counts."""
        folder = self.root / "superlink" / "keys"
        file, participant = folder / f"{name}.pub", self.participants[name]
        if participant.revoked:
            file.unlink(missing_ok=True)
        elif not file.exists() or file.read_bytes() != participant.line:
            make_private_folder(folder)
            write_atomically(file, participant.line)

    def _authority(self) -> bytes:
        return (self.root / "ca" / AUTHORITY).read_bytes()

    def _address(self) -> str:
        host = self.hosts[0]
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def _save(self) -> None:
        saved = {key: value for key, value in asdict(self).items() if key not in ("root", "todo", "undone")}
        write_atomically(self.root / "ca" / "federation.json", json.dumps(saved, indent=1).encode(), mode=0o600)
