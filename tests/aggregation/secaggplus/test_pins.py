"""Devices that know each other's keys: a server that invents clients gets nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from in_process import run_in_process
from own_keys import node_configs, write_keys
from secure_rounds import ROUND, RUN, play

from fedapp.aggregation.secaggplus.cohort_view import CohortView
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.secaggplus.signing import check_signed_keys, sign_keys
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.common.device_keys import Identity, Peers, read_identity, read_peers
from fedapp.common.errors import NodeConfigError
from fedapp.privacy.limits import own_limits


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    return write_keys(tmp_path / "devices", 4)


@pytest.fixture
def identities(devices: Path) -> list[Identity]:
    return [read_identity(devices / f"device-{number}") for number in range(4)]


@pytest.fixture
def peers(devices: Path) -> Peers:
    return read_peers(devices / "keys")


def signed(view: CohortView, identities: list[Identity]) -> CohortView:
    members = [
        replace(m, signature=sign_keys(identities[m.client], RUN, ROUND, m.client, m.cipher_key, m.mask_key))
        for m in view.members
    ]
    return replace(view, members=tuple(members))


def test_a_cohort_of_pinned_devices_is_accepted(identities: list[Identity], peers: Peers) -> None:
    view = signed(play(4, Settings(bits=12), upto="keys").server.close_keys(), identities)
    check_signed_keys(view, peers)
    with pytest.raises(ProtocolError, match="forged: the keys of client 0: signed by another device"):
        check_signed_keys(play(4, Settings(bits=12), upto="keys").server.close_keys(), peers)


def test_invented_clients_and_changed_keys_are_refused(identities: list[Identity], peers: Peers) -> None:
    view = signed(play(4, Settings(bits=12), upto="keys").server.close_keys(), identities)
    first, second, *others = view.members
    stranger = Identity(ec.generate_private_key(ec.SECP384R1()))
    told = (RUN, ROUND, 1, second.cipher_key, second.mask_key)
    cases = {
        "another device": replace(second, signature=sign_keys(stranger, *told)),
        "not what": replace(second, mask_key=others[0].cipher_key),
        "client 1: signed by another device": replace(second, signature=sign_keys(identities[0], *told)),
        "client 9: no device": replace(second, client=9),
    }
    for words, member in cases.items():
        with pytest.raises(ProtocolError, match=words):
            check_signed_keys(replace(view, members=(first, member, *others)), peers)
    for run, server_round in (("ff" * 8, ROUND), (RUN, ROUND + 1)):
        with pytest.raises(ProtocolError, match="not what"):
            check_signed_keys(replace(view, run=run, server_round=server_round), peers)


def test_two_devices_cannot_change_places(identities: list[Identity], peers: Peers) -> None:
    """Both are pinned, and each has signed: for the other's client."""
    view = play(4, Settings(bits=12), upto="keys").server.close_keys()
    swapped = [identities[1], identities[0], *identities[2:]]
    with pytest.raises(ProtocolError, match="client 0: signed by another device than the one that is pinned"):
        check_signed_keys(signed(view, swapped), peers)


def test_without_pins_each_client_still_needs_a_device_of_its_own(identities: list[Identity]) -> None:
    """A server that invents no device cannot have one of them stand for two clients."""
    view = play(4, Settings(bits=12), upto="keys").server.close_keys()
    check_signed_keys(signed(view, identities), None)
    with pytest.raises(ProtocolError, match="client 1: signed by the device of another client") as caught:
        check_signed_keys(signed(view, [identities[0], identities[0], *identities[2:]]), None)
    assert caught.value.accused == (1,)
    with pytest.raises(ProtocolError, match="client 0: signed by no device") as caught:
        check_signed_keys(view, None)
    assert 0 in caught.value.accused


def test_a_run_among_pinned_devices(devices: Path, tmp_path: Path) -> None:
    """Device 3 is known to nobody: whoever pins the others does not go on in a cohort with it."""
    overrides = (
        "federation.num_rounds=1 federation.num_clients=4 federation.fraction_train=1 model=logistic_regression"
        " partition=iid secure_aggregation=secaggplus federation.min_clients=3"
    )
    configs = node_configs(devices, 4)
    del configs[3]["peers"]
    good = run_in_process(tmp_path / "good", overrides, node_configs=configs)
    assert '"replied": 4' in (good / "metrics.jsonl").read_text()
    (devices / "keys" / "3.pub").unlink()
    with pytest.raises(Exception, match="no round had"):
        run_in_process(tmp_path / "bad", overrides, node_configs=configs)
    assert (
        "the keys of client 3: no device is pinned here for this client"
        in (tmp_path / "bad" / "clients.jsonl").read_text()
    )


def test_a_min_cohort_without_peers_is_refused(devices: Path) -> None:
    """A server could invent the rest of the cohort."""
    with pytest.raises(NodeConfigError, match="min-cohort: needs peers"):
        own_limits({"min-cohort": 3})
    assert own_limits({"min-cohort": 3, "peers": str(devices / "keys")}).min_cohort == 3


@pytest.mark.parametrize("key", ["signing-key", "peers"])
def test_relative_paths_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(Exception, match=f"{key}=here: must be an absolute path"):
        run_in_process(tmp_path / "run", "", node_configs=[{"partition-id": 0, "num-partitions": 1, key: "here"}])
