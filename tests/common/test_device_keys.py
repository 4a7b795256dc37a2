"""Devices' own keys: a site trusts whom its folder names, each for the client that the key is bound to."""

from pathlib import Path

import pytest
from own_keys import write_keys

from fedapp.common.device_keys import Identity, Peers, client_of, is_signed, read_identity, read_peers, signer
from fedapp.common.errors import ConfigError, NodeConfigError


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_keys(tmp_path_factory.mktemp("devices") / "keys", 3)


@pytest.fixture
def own(devices: Path, tmp_path: Path) -> Path:
    """A copy of the folder of public keys, to be changed."""
    for file in (devices / "keys").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def identity(devices: Path, number: int) -> Identity:
    return read_identity(devices / f"device-{number}")


def test_a_signature_is_by_one_key_for_one_purpose_over_one_message(devices: Path) -> None:
    first, second = identity(devices, 0), identity(devices, 1)
    made = first.sign("a purpose", "run", 3, b"key")
    assert signer(made) == first.public
    assert is_signed(made, "a purpose", "run", 3, b"key")
    assert not is_signed(made, "another", "run", 3, b"key")
    assert not is_signed(made, "a purpose", "run", 4, b"key")
    assert not is_signed(made, "a purpose", "ru", "n3", b"key")  # parts do not flow into one another
    assert not is_signed(second.public + made[49:], "a purpose", "run", 3, b"key")
    for broken in (b"", made[:49], made[:-1], b"\0" * len(made)):
        assert not is_signed(broken, "a purpose", "run", 3, b"key")


def test_no_site_speaks_for_another(devices: Path) -> None:
    """A key counts for the client that it is bound to, whatever number its owner signs for."""
    peers, first, stranger = read_peers(devices / "keys"), identity(devices, 0), identity(devices, 2)
    assert peers.fault(0, first.sign("p", 0), "p", 0) is None
    assert "another device" in str(peers.fault(1, first.sign("p", 1), "p", 1))
    assert "no device is pinned" in str(peers.fault(7, first.sign("p", 7), "p", 7))
    assert "not what its device signed" in str(peers.fault(0, first.sign("p", 1), "p", 0))
    assert "another device" in str(Peers({0: first.public}).fault(0, stranger.sign("p", 0), "p", 0))


def test_the_folder_must_bind_each_key_to_one_client(own: Path) -> None:
    kind, key, comment = (own / "1.pub").read_text().split()
    for line in (
        f"{kind} {key}",
        f"{kind} {key} {comment} client=4",
        f"{kind} {key} client=-1",
        f"{kind} {key} x{comment}",
    ):
        (own / "1.pub").write_text(line)
        with pytest.raises(NodeConfigError, match=r"1\.pub is bound to no client"):
            read_peers(own)
    (own / "1.pub").write_text(f"{kind} {key} client=0")
    with pytest.raises(NodeConfigError, match=r"0\.pub and 1\.pub are of the same client"):
        read_peers(own)
    (own / "1.pub").write_text((own / "0.pub").read_text().replace("client=0", "client=1"))
    with pytest.raises(NodeConfigError, match=r"0\.pub and 1\.pub .* the same key"):
        read_peers(own)
    (own / "1.pub").write_text(f"{kind} {key} someone@site-B client=1")
    assert set(read_peers(own).keys) == {0, 1, 2}
    assert client_of(b"") is None


def test_files_that_are_no_keys_are_named(devices: Path, own: Path) -> None:
    for file in (devices / "missing", devices / "keys" / "0.pub"):
        with pytest.raises(ConfigError, match="signing-key") as caught:
            read_identity(file)
        assert str(devices) not in str(caught.value)  # it may leave the device
    (own / "4.pub").write_text("nonsense")
    with pytest.raises(NodeConfigError, match=r"4\.pub"):
        read_peers(own)
    with pytest.raises(ConfigError, match="two devices"):
        read_peers(devices)


def test_other_kinds_of_key_are_refused(own: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    openssh = serialization.PrivateFormat.OpenSSH
    (own / "p256").write_bytes(key.private_bytes(serialization.Encoding.PEM, openssh, serialization.NoEncryption()))
    with pytest.raises(ConfigError, match="P-384"):
        read_identity(own / "p256")
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    (own / "5.pub").write_bytes(public + b" client=5")
    with pytest.raises(NodeConfigError, match=r"5\.pub must be an ECDSA key on P-384"):
        read_peers(own)
