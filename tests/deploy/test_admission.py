"""Which keys count: removals happen whatever is wrong with other sites, and what failed is tried again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from fedapp.common.device_keys import public_line
from fedapp.common.errors import FederationError
from fedapp.deploy import admission
from fedapp.deploy.admission import change, public_keys
from fedapp.deploy.folders import SuperLinkFolder
from fedapp.deploy.identity import new_supernode_key
from fedapp.deploy.superlink import RETRY, DeployedSuperLink
from fedapp.flower.control import RegisteredNode


class FakeControl:
    """A SuperLink's registry. Calls about `broken` fail; a key that was unregistered is never taken again."""

    def __init__(self, broken: str = "") -> None:
        self.registry: dict[int, RegisteredNode] = {}
        self.broken = broken

    def nodes(self) -> list[RegisteredNode]:
        return list(self.registry.values())

    def register(self, name: str, public_key: bytes) -> None:
        if name == self.broken:
            raise RuntimeError("no answer")
        number = len(self.registry)
        self.registry[number] = RegisteredNode(number, name, public_key, revoked=False)

    def unregister(self, node_id: int) -> None:
        node = self.registry[node_id]
        if node.name == self.broken:
            raise RuntimeError("no answer")
        self.registry[node_id] = RegisteredNode(node_id, node.name, node.public_key, revoked=True)

    def there(self) -> set[str]:
        return {node.name for node in self.registry.values() if not node.revoked}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "ABC":
        write(tmp_path, name)
    return tmp_path


def write(folder: Path, name: str) -> None:
    (folder / f"{name}.pub").write_bytes(new_supernode_key()[1])


def admit(folder: Path, control: FakeControl) -> dict[str, str]:
    keys, faults = public_keys(folder)
    return change(control, keys, faults)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"", b"ssh-ed25519 AAAA", b"\xff\xfe", b"ssh-rsa AAAAB3NzaC1yc2E= x", None])
def test_a_malformed_key_stops_no_removal(folder: Path, content: bytes | None) -> None:
    control = FakeControl()
    admit(folder, control)
    (folder / "A.pub").unlink()
    if content is None:
        (folder / "B.pub").unlink()
        (folder / "B.pub").mkdir()
    else:
        (folder / "B.pub").write_bytes(content)
    write(folder, "D")
    keys, faults = public_keys(folder)
    assert set(keys) == {"C", "D"}
    assert "B.pub" in faults["B"]
    assert admit(folder, control) == {"A": "unregistered", "D": "registered"}
    # B's file may be half copied, and Flower would never take its key again.
    assert control.there() == {"B", "C", "D"}
    (folder / "B.pub").rmdir() if content is None else (folder / "B.pub").unlink()
    assert admit(folder, control) == {"B": "unregistered"}


def test_a_revoked_key_that_came_back_stops_nobody_else(folder: Path) -> None:
    control = FakeControl()
    admit(folder, control)
    old = (folder / "A.pub").read_bytes()
    (folder / "A.pub").unlink()
    admit(folder, control)
    (folder / "A.pub").write_bytes(old)
    write(folder, "D")
    (folder / "C.pub").unlink()
    changes = admit(folder, control)
    assert "provision --renew A" in changes["A"]
    assert control.there() == {"B", "D"}


@pytest.mark.parametrize("broken", ["A", "D"])
def test_a_call_that_fails_stops_no_other(folder: Path, broken: str) -> None:
    control = FakeControl()
    admit(folder, control)
    for name in "AB":
        (folder / f"{name}.pub").unlink()
    for name in "DE":
        write(folder, name)
    control.broken = broken
    with pytest.raises(FederationError, match=f"{broken}: not .*registered: no answer"):
        admit(folder, control)
    assert control.there() == ({"C", "D", "E"} | {"A"} if broken == "A" else {"C", "E"})
    control.broken = ""
    admit(folder, control)
    assert control.there() == {"C", "D", "E"}


def test_what_failed_is_tried_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").mkdir()
    write(tmp_path / "keys", "A")
    (tmp_path / "ca.crt").write_bytes(b"")
    control, now, tries = FakeControl(broken="A"), [0.0], [0]

    @contextmanager
    def connect(address: str, authority: bytes) -> Iterator[FakeControl]:
        tries[0] += 1
        yield control

    monkeypatch.setattr(admission, "connect", connect)
    link = DeployedSuperLink(SuperLinkFolder(tmp_path, 1, 2), tmp_path, "", lambda line: None, clock=lambda: now[0])
    with pytest.raises(FederationError):
        link.admit()
    assert link.admit() == {}  # not each second
    assert tries == [1]
    control.broken, now[0] = "", RETRY
    assert link.admit() == {"A": "registered"}
    now[0] *= 5
    assert link.admit() == {}
    assert tries == [2]


def test_keys_are_what_flower_compares(folder: Path) -> None:
    key = load_ssh_public_key((folder / "A.pub").read_bytes())
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert public_keys(folder)[0]["A"] == pem


def test_a_key_that_is_bound_to_a_client_is_registered_with_it_and_spoken_of_by_its_site(folder: Path) -> None:
    for name, client in (("A", 0), ("B", 1)):
        line = (folder / f"{name}.pub").read_text().split()
        (folder / f"{name}.pub").write_bytes(public_line(" ".join(line), client))
    control = FakeControl()
    assert admit(folder, control) == dict.fromkeys("ABC", "registered")
    assert control.there() == {"A (client 0)", "B (client 1)", "C"}
    (folder / "A.pub").write_bytes(b"half copied")
    (folder / "B.pub").unlink()
    assert admit(folder, control) == {"B": "unregistered"}
    assert control.there() == {"A (client 0)", "C"}
