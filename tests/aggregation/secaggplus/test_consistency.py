"""A server that lies about who has survived, and dropouts that cut a sparse graph: no small part of a sum is opened."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from in_process import InProcessGrid, run_in_process, run_on
from own_keys import node_configs, write_keys
from secure_rounds import Played, mask, play
from secure_runs import QUICK, SMALL, rows, stage, summary

from fedapp.aggregation.secaggplus.cohort_view import CohortView
from fedapp.aggregation.secaggplus.keys import KeyPair
from fedapp.aggregation.secaggplus.least_sum import LeastSum
from fedapp.aggregation.secaggplus.member import apply_masks, mask_key
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.secaggplus.signing import sign_list
from fedapp.aggregation.secaggplus.unmasking import Revealed, agree, unmask
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.common.device_keys import Identity
from fedapp.common.errors import FederationError


@pytest.fixture(scope="module")
def identities() -> list[Identity]:
    return [Identity(ec.generate_private_key(ec.SECP384R1())) for _ in range(12)]


def around(view: CohortView) -> list[int]:
    """The clients of a ring with few neighbours, in its order."""
    clients = [member.client for member in view.members]
    degree, found = len(view.neighbours(clients[0])), [clients[0]]
    while len(found) < len(clients):
        # The next one has most neighbours in common with this one, itself counted, and is not behind it.
        here, left = set(view.holders(found[-1])), set(clients) - set(found)
        found.append(max(sorted(left & here), key=lambda other: len(here & set(view.holders(other)))))
    assert degree % 2 == 0
    return found


# --- components ---------------------------------------------------------------------------------------------------


def cut(settings: Settings, least: LeastSum, upto: str) -> tuple[Played, list[int], set[int]]:
    """Six clients in a ring, of whom two that lie opposite each other have gone."""
    played = play(6, settings, upto=upto)
    view = played.server.close_keys() if upto == "keys" else played.view
    ring = around(view)
    return played, ring, {ring[0], ring[3]}


def test_survivors_that_dropouts_have_cut_off_count_alone() -> None:
    """With two neighbours each, two dropouts leave two pairs, each of which could be unmasked apart."""
    settings, least = Settings(2, 2, bits=12), LeastSum(4)
    played, ring, gone = cut(settings, least, "masked")
    survivors = sorted(set(ring) - gone)
    assert played.view.component(ring[1], survivors) == {ring[1], ring[2]}
    for client in survivors:
        with pytest.raises(ProtocolError, match=r"too few: 2 clients in the sum \(of 4, .* apart\)"):
            unmask(played.secrets[client], played.view, survivors, sorted(gone), least=least)
    assert unmask(played.secrets[ring[1]], played.view, survivors, sorted(gone), least=LeastSum(2))


def test_nor_do_they_train_when_others_were_lost_before() -> None:
    settings, least = Settings(2, 2, bits=12), LeastSum(4)
    played, ring, gone = cut(settings, least, "shares")
    present = sorted(set(ring) - gone)
    with pytest.raises(ProtocolError, match="too few: 2 clients in the sum"):
        mask(played.secrets[ring[1]], played.view, present, {}, np.ones(50, np.int64), least=least)


def test_weights_count_within_one_s_own_component() -> None:
    """Four clients of equal worth in all, of whom one's own half is worth little more than one."""
    settings = Settings(2, 2, bits=12)
    played = play(6, settings, upto="keys")
    view = played.server.close_keys()
    ring = around(view)
    heavy = {ring[1]: 0.40, ring[2]: 0.02, ring[4]: 0.20, ring[5]: 0.20, ring[0]: 0.09, ring[3]: 0.09}
    members = tuple(replace(m, weight=heavy[m.client]) for m in view.members)
    survivors = sorted(ring[i] for i in (1, 2, 4, 5))
    other = replace(view, members=members)
    other.__dict__["_graph"] = view._graph  # weights are part of the digest, from which the ring follows
    LeastSum(2).check(other, ring[4], survivors)
    with pytest.raises(ProtocolError, match=r"by their weights 2 clients count as 1\.1"):
        LeastSum(2).check(other, ring[1], survivors)


# --- signed lists -------------------------------------------------------------------------------------------------

STRICT = LeastSum(3, signed=True)


class Devices:
    """Twelve clients on a ring of four neighbours, after the stage masked; client by client they sign and reveal."""

    def __init__(self, identities: list[Identity], settings: Settings, least: LeastSum) -> None:
        self.played = play(12, settings, length=5, upto="masked", identities=identities if least.signed else ())
        self.played.server.close_masked()
        self.view, self.least, self.identities = self.played.view, least, identities

    def sign(self, client: int, survivors: Collection[int]) -> bytes:
        dropped = set(range(12)) - set(survivors)
        kept = agree(self.played.secrets[client], self.view, survivors, dropped, self.least)
        self.played.secrets[client] = kept
        return sign_list(self.identities[client], self.view, client, kept.agreed)

    def reveal(self, client: int, survivors: Collection[int], signatures: Mapping[int, bytes]) -> Revealed:
        dropped = set(range(12)) - set(survivors)
        secrets = self.played.secrets.pop(client)
        return unmask(secrets, self.view, survivors, dropped, signatures, least=self.least)


def attack(devices: Devices) -> tuple[int, list[int]]:
    """Tell each neighbour of u that u and itself have survived, and u's other neighbours have not; tell the rest that
    none of them has. How many shares of u's self-mask seed are got, and of the mask key of each neighbour of u."""
    view = devices.view
    ring = around(view)
    near, u = {ring[i] for i in (3, 4, 6, 7)}, ring[5]
    lists = {client: set(ring) - near | {client} for client in ring}
    signatures: dict[int, bytes] = {}
    if devices.least.signed:
        for client in sorted(set(ring) - {u}):  # to u its list is of itself alone, which it does not sign
            signatures[client] = devices.sign(client, lists[client])
    selfs, keys = 0, dict.fromkeys(near, 0)
    for client in ring:
        own = {other: made for other, made in signatures.items() if lists[other] == lists[client]}
        try:
            revealed = devices.reveal(client, lists[client], own)
        except ProtocolError:
            continue
        selfs += u in revealed.self_shares
        for other in near:
            keys[other] += other in revealed.key_shares
    return selfs, sorted(keys.values())


def test_the_standard_attack_unmasks_one_client_without_signatures_and_none_with_them(
    identities: list[Identity],
) -> None:
    """Though every client asks for six others, and the threshold is above half of the holders."""
    settings = Settings(4, 3, bits=12)
    selfs, keys = attack(Devices(identities, settings, LeastSum(6)))
    assert selfs >= 3  # all that it takes to rebuild the seed
    assert keys[0] >= 3
    selfs, keys = attack(Devices(identities, settings, LeastSum(6, signed=True)))
    assert selfs == 0
    assert keys[-1] < 3


def test_nothing_is_revealed_without_enough_signatures_of_that_list(identities: list[Identity]) -> None:
    settings, everyone = Settings(None, 8, bits=12), range(12)
    devices = Devices(identities, settings, STRICT)
    signatures = {client: devices.sign(client, everyone) for client in everyone}
    with pytest.raises(ProtocolError, match="too few: 7 of those who hold client 0's shares have signed"):
        devices.reveal(0, everyone, {client: signatures[client] for client in range(7)})
    with pytest.raises(ProtocolError, match="wrong cohort: client 3 has signed another list"):
        devices.reveal(1, everyone, signatures | {3: signatures[4]})
    with pytest.raises(ProtocolError, match="wrong cohort: another list of survivors than the one"):
        devices.reveal(2, range(11), signatures)
    assert devices.reveal(4, everyone, {client: signatures[client] for client in range(8)}).self_shares
    assert devices.reveal(9, everyone, {client: signatures[client] for client in range(7)}).self_shares  # and its own


def test_one_list_is_signed_and_nothing_is_revealed_without_a_signature(identities: list[Identity]) -> None:
    devices = Devices(identities, Settings(None, 8, bits=12), STRICT)
    with pytest.raises(ProtocolError, match="wrong stage"):
        devices.reveal(0, range(12), {})
    devices.sign(1, range(12))
    with pytest.raises(ProtocolError, match="replayed"):
        devices.sign(1, range(11))
    with pytest.raises(ProtocolError, match="both secrets"):
        agree(devices.played.secrets[2], devices.view, range(12), [4], STRICT)
    with pytest.raises(ProtocolError, match="too few: 7 of"):
        devices.sign(3, range(7))


def test_whoever_signs_for_another_client_does_not_count(identities: list[Identity]) -> None:
    devices = Devices(identities, Settings(None, 8, bits=12), STRICT)
    made = {client: devices.sign(client, range(12)) for client in range(12)}
    agreed = devices.played.secrets[5].agreed
    forged = sign_list(identities[4], devices.view, 5, agreed)
    with pytest.raises(ProtocolError, match="client 5 has signed another list"):
        devices.reveal(0, range(12), made | {5: forged})
    with pytest.raises(ProtocolError, match="has not signed this list"):
        devices.played.server.add_signature(5, forged)


def test_clients_that_were_told_of_others_have_no_mask_in_common() -> None:
    """Else a server could keep a client apart from neighbours that it is said to be in one sum with."""
    sums = []
    for told in ([0, 1, 2, 3, 4], [0, 1, 2, 3]):
        played = play(5, Settings(bits=12), length=50, upto="shares")
        present, total = played.server.close_shares(), np.zeros(50, np.uint32)
        for client in range(5):
            here = told if client == 1 else list(present)
            sealed = {s: v for s, v in played.server.sealed_for(client).items() if s in here}
            played.secrets[client], vector = mask(
                played.secrets[client], played.view, here, sealed, np.zeros(50, np.int64)
            )
            total += vector
            alone = replace(played.secrets[client], present=(client,))
            total -= apply_masks(alone, played.view, np.zeros(50, np.int64))  # its own mask
        sums.append(int(np.count_nonzero(total)))
    # With client 4 left out of what client 1 was told, more than the one mask between them stays in the sum.
    assert sums[0] == 0
    assert sums[1] > 45
    pairs = [KeyPair(bytes([number]) * 16) for number in range(2)]
    keys = [mask_key(pairs[0], played.view, told, 0, 1, pairs[1].public) for told in (range(5), range(4), range(5))]
    assert keys[0] == keys[2] != keys[1]


@pytest.mark.parametrize(("neighbours", "threshold", "cohort"), [(None, 6, 12), (4, 2, 12), (2, None, 3)])
def test_a_threshold_that_half_of_the_holders_reach_is_refused_on_devices(
    neighbours: int | None, threshold: int | None, cohort: int
) -> None:
    settings = Settings(neighbours, threshold, bits=12)
    view = play(cohort, settings, upto="keys").server.close_keys()
    if settings.colluders(cohort) >= 0:
        STRICT.check_cohort(view, 0)
        return
    with pytest.raises(ProtocolError, match="could collect both secrets"):
        STRICT.check_cohort(view, 0)
    LeastSum(3).check_cohort(view, 0)


# --- whole runs ---------------------------------------------------------------------------------------------------


# Four clients: with more, the SuperNodes' runs would be built anew for each message in this process.
ONCE = SMALL.replace("num_rounds=2", "num_rounds=1").replace("num_clients=6", "num_clients=4")


def test_devices_sign_in_a_fifth_message_and_simulations_need_none(tmp_path: Path) -> None:
    only = ONCE
    configs = node_configs(write_keys(tmp_path / "devices", 4), 4)
    for config in configs:
        config["min-cohort"] = 4
    models = []
    for number, (given, stages) in enumerate(((configs, 5), (None, 4))):
        grid = InProcessGrid(only, 4, node_configs=given)
        directory = run_on(grid, tmp_path / str(number), only)
        asked = dict.fromkeys(stage(m) for m in grid.sent if m.metadata.message_type == "train")
        assert list(asked) == ["keys", "shares", "masked", *["consistency"] * (stages == 5), "unmask"]
        models.append(summary(directory)["model_sha256"])
    assert models[0] == models[1]


def test_a_device_that_signs_nothing_costs_its_shares_and_not_its_update(tmp_path: Path) -> None:
    only = ONCE + QUICK
    configs = node_configs(write_keys(tmp_path / "devices", 4), 4)
    gone = lambda reply: None if stage(reply) == "consistency" and reply.metadata.src_node_id == 102 else reply  # noqa: E731
    directory = run_in_process(tmp_path / "run", only, node_configs=configs, tamper=gone)
    assert [row["rejected"] for row in rows(directory, 1).values()] == [None] * 4
    assert summary(directory)["status"] == "finished"


def test_a_server_that_forwards_no_signature_gets_nothing(tmp_path: Path) -> None:
    only = ONCE + QUICK
    grid = InProcessGrid(only, node_configs=node_configs(write_keys(tmp_path / "devices", 4), 4))
    push = grid.push_messages

    def without(messages):  # type: ignore[no-untyped-def]
        messages = list(messages)
        for message in messages:
            if stage(message) == "unmask":
                del message.content["signatures"]
        return push(messages)

    grid.push_messages = without  # type: ignore[method-assign]
    with pytest.raises(FederationError, match="no round had"):
        run_on(grid, tmp_path / "run", only)
    assert "too few" in rows(tmp_path / "run", 1)[0]["unused"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"threshold": " secure_aggregation.threshold=2 federation.min_clients=4"}, "2 x threshold must be above 4"),
        ({"drop": "signing-key"}, "signing-key: under secure aggregation a device signs"),
    ],
)
def test_what_a_device_cannot_take_part_in_is_said_in_the_preflight(
    tmp_path: Path, change: dict[str, str], words: str
) -> None:
    configs = node_configs(write_keys(tmp_path / "devices", 4), 4)
    for config in configs:
        config.pop(change.get("drop", ""), None)
    with pytest.raises(FederationError, match=words):
        run_in_process(tmp_path / "run", ONCE + change.get("threshold", ""), node_configs=configs)
