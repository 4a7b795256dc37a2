"""Certificates, keys and folders: who gets what, who can read it, and what a second call changes."""

import json
import os
import stat
from argparse import Namespace
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from fedapp.common.errors import ConfigError
from fedapp.deploy import folders, provision, sign, superlink
from fedapp.deploy.identity import expiry
from fedapp.deploy.only_one import only_one
from fedapp.deploy.register import Register

PRIVATE = {"ca.key", "server.key", "supernode.key"}


def hosts_of(certificate: Path) -> tuple[str, ...]:
    """The host names and addresses that a PEM certificate is for."""
    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return tuple(str(name.value) for name in names)


def ask(root: Path, *arguments: str) -> Register:
    given: Namespace = provision.parser().parse_args([str(root), *arguments])
    return provision.provision(given)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    before = os.umask(0)  # the most that a careless system would let others do
    try:
        ask(tmp_path / "federation", "--host", "link.example.org", "10.1.2.3", "--site", "site-A", "site-B")
        yield tmp_path / "federation"
    finally:
        os.umask(before)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_each_participant_has_what_it_needs_and_nothing_else(root: Path) -> None:
    assert set(contents(root)) == {
        *("ca/ca.crt", "ca/ca.key", "ca/federation.json"),
        *("superlink/ca.crt", "superlink/server.crt", "superlink/server.key", "superlink/superlink.toml"),
        *("superlink/keys/site-A.pub", "superlink/keys/site-B.pub", "operator/ca.crt", "operator/operator.toml"),
        *(f"site-{x}/{name}" for x in "AB" for name in ("ca.crt", "supernode.key", "site.toml", f"site-{x}.pub")),
    }
    secrets = {path: path.read_bytes() for path in root.rglob("*") if path.name in PRIVATE}
    assert len(secrets) == len(set(secrets.values())) == 4
    for path in root.rglob("*"):
        if path.is_file() and path not in secrets:
            assert b"PRIVATE KEY" not in path.read_bytes(), path


def test_nobody_else_can_read_a_private_key_or_enter_a_folder(root: Path) -> None:
    for path in [root, *root.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir():
            assert mode == 0o700, path
        elif path.name in PRIVATE:
            assert mode == 0o600, path


def test_not_even_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, int] = {}
    opened = os.open

    def watched(path: str, flags: int, mode: int = 0o777, **options: int) -> int:
        number = opened(path, flags, mode, **options)
        seen[Path(path).name] = stat.S_IMODE(os.fstat(number).st_mode)
        return number

    monkeypatch.setattr(os, "open", watched)
    (tmp_path / "federation" / "site-A").mkdir(parents=True)
    leftover = tmp_path / "federation" / "site-A" / "supernode.key.partial"
    leftover.write_text("of an interrupted call")
    leftover.chmod(0o666)
    before = os.umask(0)
    try:
        ask(tmp_path / "federation", "--host", "localhost", "--site", "site-A")
    finally:
        os.umask(before)
    assert {seen[f"{name}.partial"] for name in PRIVATE} == {0o600}


def test_the_certificate_is_the_servers_and_the_authoritys(root: Path) -> None:
    assert hosts_of(root / "superlink" / "server.crt") == ("link.example.org", "10.1.2.3", "localhost", "127.0.0.1")
    authority = x509.load_pem_x509_certificate((root / "site-A" / "ca.crt").read_bytes())
    policy = PolicyBuilder().store(Store([authority]))
    loaded = x509.load_pem_x509_certificate((root / "superlink" / "server.crt").read_bytes())
    for host in (x509.DNSName("link.example.org"), x509.DNSName("localhost"), x509.IPAddress(ip_address("10.1.2.3"))):
        policy.build_server_verifier(host).verify(loaded, [])
    with pytest.raises(VerificationError):
        policy.build_server_verifier(x509.DNSName("other.org")).verify(loaded, [])
    assert not loaded.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert 364 <= (expiry(root / "superlink" / "server.crt") - loaded.not_valid_before_utc).days <= 366


def test_keys_are_as_flower_wants_them_and_fit_together(root: Path) -> None:
    private = serialization.load_ssh_private_key((root / "site-A" / "supernode.key").read_bytes(), None)
    public = serialization.load_ssh_public_key((root / "superlink" / "keys" / "site-A.pub").read_bytes())
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert private.curve.name == "secp384r1"
    assert private.public_key() == public
    site = folders.read_site(root / "site-A")
    assert (site.name, site.superlink, site.client) == ("site-A", "link.example.org:8443", 0)
    assert folders.read_site(root / "site-B").client == 1


def test_a_second_call_changes_nothing(root: Path) -> None:
    before = contents(root)
    ask(root, "--host", "link.example.org", "10.1.2.3", "--site", "site-A", "site-B")
    ask(root)
    assert contents(root) == before


def test_sites_can_be_added_when_folders_have_gone_where_they_are_needed(root: Path) -> None:
    key = (root / "superlink" / "server.key").read_bytes()
    (root / "site-A").rename(root.parent / "site-A")
    (root / "superlink").rename(root.parent / "superlink")
    before = contents(root)
    ask(root, "--site", "site-A", "site-C")
    after = contents(root)
    assert not (root / "site-A").exists()  # a new key would not be the one that is registered
    assert not (root / "superlink" / "server.key").exists()
    assert folders.read_site(root / "site-C").client == 2
    assert "superlink/keys/site-C.pub" in after
    assert {name: after[name] for name in before if name != "ca/federation.json"} == {
        name: before[name] for name in before if name != "ca/federation.json"
    }
    assert (root.parent / "superlink" / "server.key").read_bytes() == key


def test_an_interrupted_call_is_taken_up(root: Path) -> None:
    """A site's key was written, and the register not yet."""
    register = root / "ca" / "federation.json"
    saved = json.loads(register.read_text())
    del saved["participants"]["site-B"]
    register.write_text(json.dumps(saved))
    (root / "superlink" / "keys" / "site-B.pub").unlink()
    key = (root / "site-B" / "supernode.key").read_bytes()
    ask(root, "--site", "site-B")
    assert (root / "site-B" / "supernode.key").read_bytes() == key
    assert (root / "superlink" / "keys" / "site-B.pub").exists()


def test_renewing_one_changes_that_one(root: Path) -> None:
    before = contents(root)
    ask(root, "--renew", "superlink", "--days", "10")
    after = contents(root)
    assert {name for name in before if before[name] != after[name]} == {"superlink/server.crt", "superlink/server.key"}
    ask(root, "--renew", "site-A")
    last = contents(root)
    changed = {"ca/federation.json", "superlink/keys/site-A.pub", "site-A/supernode.key", "site-A/site-A.pub"}
    assert {name for name in after if after[name] != last[name]} == changed
    assert folders.read_site(root / "site-A").client == 0
    ask(root, "--renew", "superlink", "--host", "new.example.org")
    assert hosts_of(root / "superlink" / "server.crt")[0] == "new.example.org"


def test_revoking_one_takes_away_its_key_and_renewing_lets_it_in_with_another(root: Path) -> None:
    before = contents(root)
    ask(root, "--revoke", "site-B")
    after = contents(root)
    assert before.keys() - after.keys() == {"superlink/keys/site-B.pub"}
    with pytest.raises(ConfigError, match="was revoked"):
        ask(root, "--site", "site-B")
    ask(root, "--renew", "site-B")
    assert (root / "superlink" / "keys" / "site-B.pub").read_bytes() != before["superlink/keys/site-B.pub"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "other.org"], "link.example.org.*--renew superlink"),
        (["--site", "site-C", "../x"], r"--site \.\./x"),
        (["--site", "ca"], "--site ca"),
        (["--renew", "nobody"], "nobody: no such site; there are site-A, site-B"),
        (["--revoke", "nobody"], "no such site"),
        (["--port", "70000"], "--port 70000"),
        (["--port", "9000"], "--port 9000.*8443"),
        (["--days", "0"], "--days 0"),
    ],
)
def test_refusals_change_nothing(root: Path, arguments: list[str], words: str) -> None:
    before = contents(root)
    with pytest.raises(ConfigError, match=words):
        ask(root, *arguments)
    assert contents(root) == before


@pytest.mark.parametrize("host", ["http://link", "a b", "x..y", "300.1.1.1", ""])
def test_a_new_federation_needs_a_host(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match="--host"):
        ask(tmp_path / "new", *(["--host", host] if host else []))
    assert not (tmp_path / "new").exists()


def test_a_key_that_others_can_read_is_not_used(root: Path) -> None:
    (root / "site-A" / "supernode.key").chmod(0o640)
    with pytest.raises(ConfigError, match=r"mode 0640.*chmod 600"):
        folders.read_site(root / "site-A")


def test_a_signing_key_is_private_and_never_overwritten(tmp_path: Path) -> None:
    sign.make_key(tmp_path / "release.key")
    assert stat.S_IMODE((tmp_path / "release.key").stat().st_mode) == 0o600
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match="is there already"):
        sign.make_key(tmp_path / "release.key")
    assert contents(tmp_path) == before


# --- folders that are elsewhere ----------------------------------------------------------------------------------


def status(root: Path, *arguments: str) -> int:
    return provision.main([str(root), *arguments])


def move_away(root: Path, name: str) -> None:
    (root / name).rename(root.parent / f"elsewhere-{name}")


@pytest.mark.parametrize("step", ["--revoke", "--renew"])
@pytest.mark.parametrize("left", [False, True])  # a keys/ folder that an earlier --site made anew
def test_where_the_superlinks_folder_is_elsewhere_the_old_key_still_counts(
    root: Path, step: str, left: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    move_away(root, "superlink")
    if left:
        ask(root, "--site", "site-C")
    assert status(root, step, "site-B") == 1
    said = capsys.readouterr().out
    assert "old key of site-B STILL COUNTS" in said
    assert "site-B.pub" in said


@pytest.mark.parametrize("step", ["--revoke", "--renew"])
def test_where_no_superlink_runs_from_the_folder_it_is_said(
    root: Path, step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(root, step, "site-B") == 0
    assert "no SuperLink is running from" in capsys.readouterr().out


@pytest.mark.parametrize("step", ["--revoke", "--renew"])
def test_where_one_runs_from_the_folder_nothing_is_left_to_do(
    root: Path, step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state = folders.make_private_folder(root / "superlink" / "state")
    with only_one(state, "superlink"):
        assert status(root, step, "site-B") == 0
    assert "TO DO" not in capsys.readouterr().out


def test_after_a_move_the_sites_folders_name_the_new_address(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    move_away(root, "site-B")
    keys = {path: path.read_bytes() for path in root.rglob("supernode.key")}
    assert status(root, "--renew", "superlink", "--host", "new.example.org") == 0
    said = capsys.readouterr().out
    assert folders.read_site(root / "site-A").superlink == "new.example.org:8443"
    assert all(path.read_bytes() == content for path, content in keys.items())
    assert "site.toml of site-A" in said
    assert 'folders of site-B are not here: set superlink = "new.example.org:8443"' in said
    assert not (root / "site-B").exists()


@pytest.mark.parametrize("hosts", [[], ["--host", "link.example.org", "10.9.9.9"]])
def test_where_the_first_host_stays_sites_have_nothing_to_do(
    root: Path, hosts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (root / "site-A" / "site.toml").read_bytes()
    assert status(root, "--renew", "superlink", *hosts) == 0
    assert (root / "site-A" / "site.toml").read_bytes() == before
    assert "TO DO" not in capsys.readouterr().out


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o711])
def test_a_folder_that_others_can_enter_is_closed_to_them(tmp_path: Path, mode: int) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(mode)
    assert stat.S_IMODE(folders.make_private_folder(tmp_path / "state").stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_closed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    (tmp_path / "state").mkdir(mode=0o755)
    (tmp_path / "state").chmod(0o755)
    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(ConfigError, match="chmod 700"):
        folders.make_private_folder(tmp_path / "state")


@pytest.mark.parametrize("before", [None, 0o644, 0o666])
def test_the_database_is_private_whatever_it_was(tmp_path: Path, before: int | None) -> None:
    file = tmp_path / "superlink.db"
    if before is not None:
        file.write_bytes(b"rows")
        file.chmod(before)
    folders.make_private_file(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_bytes() == (b"" if before is None else b"rows")


def test_a_superlink_has_a_private_database_from_its_start(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Flower's program opens it."""
    made: list[int] = []

    def start(command: list[str], **options: object) -> None:
        made.append(stat.S_IMODE(Path(command[command.index("--database") + 1]).stat().st_mode))
        raise ConfigError("enough")

    monkeypatch.setattr(superlink, "Program", start)
    folder = folders.read_superlink(root / "superlink")
    state = folders.make_private_folder(root / "superlink" / "state")
    with pytest.raises(ConfigError, match="enough"):
        superlink.DeployedSuperLink(folder, state, "127.0.0.1", lambda line: None).start()
    assert made == [0o600]


@pytest.mark.parametrize("unit", ["superlink", "supernode"])
def test_the_systemd_units_bound_memory(unit: str) -> None:
    folder = Path(__file__).resolve().parents[2] / "scripts" / "deploy" / "systemd"
    assert "\nMemoryMax=" in (folder / f"fedapp-{unit}.service").read_text()
