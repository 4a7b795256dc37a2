"""Devices that know each other's keys: a server that invents clients gets nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from in_process import run_in_process
from secure_rounds import ROUND, RUN, play

from fedapp.aggregation.secaggplus.cohort_view import CohortView
from fedapp.aggregation.secaggplus.pins import Identity, Peers, read_identity, read_peers
from fedapp.aggregation.secaggplus.protocol_error import ProtocolError
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.common.errors import ConfigError
from fedapp.deploy.identity import new_supernode_key


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    """Private keys in device-N, and their public keys in keys/."""
    (tmp_path / "keys").mkdir()
    for number in range(4):
        private, public = new_supernode_key()
        (tmp_path / f"device-{number}").write_bytes(private)
        (tmp_path / "keys" / f"{number}.pub").write_bytes(public)
    return tmp_path


@pytest.fixture
def identities(devices: Path) -> list[Identity]:
    return [read_identity(devices / f"device-{number}") for number in range(4)]


@pytest.fixture
def peers(devices: Path) -> Peers:
    return read_peers(devices / "keys")


def signed(view: CohortView, identities: list[Identity]) -> CohortView:
    members = [
        replace(m, signature=identities[m.client].sign(RUN, ROUND, m.client, m.cipher_key, m.mask_key))
        for m in view.members
    ]
    return replace(view, members=tuple(members))


def test_a_cohort_of_pinned_devices_is_accepted(identities: list[Identity], peers: Peers) -> None:
    view = signed(play(4, Settings(bits=12), upto="keys").server.close_keys(), identities)
    peers.check(view)
    with pytest.raises(ProtocolError, match="forged: client 0's keys are signed by no device"):
        peers.check(play(4, Settings(bits=12), upto="keys").server.close_keys())


def test_invented_clients_and_changed_keys_are_refused(identities: list[Identity], peers: Peers) -> None:
    view = signed(play(4, Settings(bits=12), upto="keys").server.close_keys(), identities)
    first, second, *others = view.members
    stranger = read_identity_of_a_stranger()
    cases = {
        "no device": replace(second, signature=stranger.sign(RUN, ROUND, 1, second.cipher_key, second.mask_key)),
        "not those": replace(second, mask_key=others[0].cipher_key),
        "another client": replace(
            second, signature=identities[0].sign(RUN, ROUND, 1, second.cipher_key, second.mask_key)
        ),
    }
    for words, member in cases.items():
        with pytest.raises(ProtocolError, match=words):
            peers.check(replace(view, members=(first, member, *others)))
    for run, server_round in (("ff" * 8, ROUND), (RUN, ROUND + 1)):
        with pytest.raises(ProtocolError, match="not those"):
            peers.check(replace(view, run=run, server_round=server_round))


def read_identity_of_a_stranger() -> Identity:
    from cryptography.hazmat.primitives.asymmetric import ec

    return Identity(ec.generate_private_key(ec.SECP384R1()))


def test_files_that_are_no_keys_are_named(devices: Path) -> None:
    with pytest.raises(ConfigError, match="signing-key"):
        read_identity(devices / "missing")
    with pytest.raises(ConfigError, match="signing-key"):
        read_identity(devices / "keys" / "0.pub")
    (devices / "keys" / "4.pub").write_text("nonsense")
    with pytest.raises(ConfigError, match=r"4\.pub"):
        read_peers(devices / "keys")
    with pytest.raises(ConfigError, match="two devices"):
        read_peers(devices)


def test_a_run_among_pinned_devices(devices: Path, tmp_path: Path) -> None:
    """Device 3 is known to nobody: whoever pins the others does not go on in a cohort with it."""
    overrides = (
        "federation.num_rounds=1 federation.num_clients=4 federation.fraction_train=1 model=logistic_regression"
        " partition=iid secure_aggregation=secaggplus federation.min_clients=3"
    )
    configs: list[dict[str, Any]] = [
        {"partition-id": n, "num-partitions": 4, "signing-key": str(devices / f"device-{n}")} for n in range(4)
    ]
    for config in configs[:3]:
        config["peers"] = str(devices / "keys")
    good = run_in_process(tmp_path / "good", overrides, node_configs=configs)
    assert '"replied": 4' in (good / "metrics.jsonl").read_text()
    (devices / "keys" / "3.pub").unlink()
    with pytest.raises(Exception, match="no round had"):
        run_in_process(tmp_path / "bad", overrides, node_configs=configs)
    assert (
        "client 3's keys are signed by no device that is pinned here"
        in (tmp_path / "bad" / "clients.jsonl").read_text()
    )


@pytest.mark.parametrize("key", ["signing-key", "peers"])
def test_relative_paths_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(Exception, match=f"{key}=here: must be an absolute path"):
        run_in_process(tmp_path / "run", "", node_configs=[{"partition-id": 0, "num-partitions": 1, key: "here"}])
