"""App bundles are signed as Flower's own SuperNodes verify them."""

import hashlib
import inspect
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from flwr.proto.fab_pb2 import Fab as ProtoFab
from flwr.proto.fab_pb2 import GetFabResponse
from flwr.supercore.fab import Fab
from flwr.supernode import start_client_internal

from fedapp.deploy.identity import new_signing_key
from fedapp.deploy.sign import sign_bundle
from fedapp.flower import signatures
from fedapp.flower.signatures import message_to_sign, signer_of, with_signatures

BUNDLE = b"an app bundle"


def test_flower_has_the_names(expect_names: Callable[..., None]) -> None:
    expect_names("signatures.py", "flwr.cli.build", "build_fab_from_disk")
    expect_names("signatures.py", "flwr.supercore.primitives.asymmetric_ed25519", "create_message_to_sign")
    expect_names("signatures.py", "flwr.proto.fab_pb2", "GetFabResponse")
    # What `flwr run` sends is made by the function that makes what is signed.
    expect_names("signatures.py", "flwr.cli.run.run", "build_fab_from_disk")
    build = import_module("flwr.cli.build").build_fab_from_disk
    assert list(inspect.signature(build).parameters) == ["app"], "build_fab_from_disk takes other arguments"


def signed(folder: Path) -> tuple[Callable[[str], dict[str, object]], dict[str, str]]:
    """The signatures of `BUNDLE` as the gateway finds them, and whom SuperNodes trust."""
    private, public = new_signing_key()
    (folder / "release.key").write_bytes(private)
    (folder / "release.key").chmod(0o600)
    digest = sign_bundle(folder / "release.key", BUNDLE, folder / "signatures")
    found = json.loads((folder / "signatures" / f"{digest}.json").read_text())
    return lambda asked: found if asked == digest else {}, {signer_of(public): public.decode()}


def received(signatures_of: Callable[[str], dict[str, object]], content: bytes = BUNDLE) -> Fab:
    """What a SuperNode makes of the gateway's reply."""
    fab = ProtoFab(hash_str=hashlib.sha256(BUNDLE).hexdigest(), content=content)
    reply = GetFabResponse.FromString(with_signatures(GetFabResponse(fab=fab).SerializeToString(), signatures_of))
    return Fab(reply.fab.hash_str, reply.fab.content, dict(reply.fab.verifications))


def test_a_supernode_verifies_them(tmp_path: Path) -> None:
    signatures_of, trusted = signed(tmp_path)
    verify = getattr(start_client_internal, "_verify_fab", None)
    assert verify is not None, "flwr has no _verify_fab: see how SuperNodes verify bundles now"
    assert verify(received(signatures_of), trusted)
    assert not verify(received(signatures_of, b"another bundle"), trusted)
    assert not verify(received(signatures_of), {"fpk_another": next(iter(trusted.values()))})


def test_a_supernode_looks_whether_there_are_any_by_the_key_that_is_set(tmp_path: Path) -> None:
    signatures_of, _ = signed(tmp_path)
    asks = f'verifications.get("{signatures.PRESENT}"'
    assert asks in inspect.getsource(start_client_internal), f"flower-supernode no longer asks {asks}"
    assert received(signatures_of).verifications[signatures.PRESENT]
    assert not received(lambda digest: {}).verifications


def test_without_flowers_message_the_known_one_is_signed(
    monkeypatch: pytest.MonkeyPatch, warned: Callable[[], list[str]]
) -> None:
    expected = message_to_sign(b"digest", 1_700_000_000)
    monkeypatch.delattr("flwr.supercore.primitives.asymmetric_ed25519.create_message_to_sign")
    assert [message_to_sign(b"digest", 1_700_000_000) for _ in range(2)] == [expected, expected]
    assert len(warned()) == 1


def test_without_the_replys_type_bundles_go_out_unsigned(
    monkeypatch: pytest.MonkeyPatch, warned: Callable[[], list[str]]
) -> None:
    monkeypatch.delattr("flwr.proto.fab_pb2.GetFabResponse")
    assert [with_signatures(b"reply", lambda digest: {"signer": {}}) for _ in range(2)] == [b"reply", b"reply"]
    assert len(warned()) == 1
