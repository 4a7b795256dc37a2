"""What a helper gives to a server that lies: the sum of enough pinned clients, once for a model, or nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import RecordDict
from helper_rounds import DEVICES, HELPER_KEY, NUMBERS, RUN, Client, Played, looks_random, plain

from fedapp.aggregation.helper.client import HelperClient
from fedapp.aggregation.helper.helper_messages import RefusedError, pack_offer, unpack_masked_sum
from fedapp.aggregation.helper.masked_integers import MaskedIntegers
from fedapp.aggregation.helper.run_keys import RunKeys, chosen, signed_keys_of_run
from fedapp.aggregation.helper.sealed_model import SEEN_FILE, ModelOpener, sealed_model
from fedapp.aggregation.helper.tags import Tag, fault_of, unsealed
from fedapp.aggregation.whole_numbers.noted_file import NotedFile
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.aggregation.whole_numbers.work_digest import work_digest
from fedapp.common.device_keys import Peers
from fedapp.common.sealed_boxes import new_private
from fedapp.common.state_digest import trained_sha256
from fedapp.wire.instruction import Instruction, pack_instruction, with_stage
from fedapp.wire.model import GlobalModel
from fedapp.wire.reply import ClientReport

CONFIG = "c" * 64


@pytest.fixture
def played(tmp_path: Path) -> Played:
    return Played(folder=tmp_path / "keep")


def tags(clients: list[Client]) -> list[Tag]:
    return [client.tag for client in clients]


def test_the_server_learns_the_sum(played: Played) -> None:
    clients = [played.client(number) for number in range(4)]
    assert np.array_equal(played.sum(clients), plain(clients))


def test_a_single_masked_vector_says_nothing_and_is_never_the_same(played: Played) -> None:
    played.length = 2000
    first, second = played.client(0), played.client(0)
    assert not np.array_equal(first.carried, second.carried)
    assert looks_random(played.carrier.read(first.carried, 2000), 2**NUMBERS.modulus_bits)


def test_each_client_is_in_one_sum_of_a_model_whatever_run_and_round_are_called(played: Played) -> None:
    clients = [played.client(number) for number in range(3)]
    played.ask(tags(clients))
    again = [played.client(number) for number in range(2, 6)]
    with pytest.raises(RefusedError, match=r"repetition: .*clients \[2\] were removed for this model before") as caught:
        played.ask(tags(again))
    assert set(caught.value.faults) == {2}
    later = [played.client(number, server_round=9) for number in range(3)]
    with pytest.raises(RefusedError, match="repetition"):
        played.ask(tags(later), server_round=9)
    played.keys = played.ask_keys("ffffffffffffffff")
    other = [played.client(number, run="ffffffffffffffff") for number in range(3)]
    with pytest.raises(RefusedError, match="repetition"):
        played.ask(tags(other), run="ffffffffffffffff")


def test_what_was_released_outlasts_the_helper(tmp_path: Path) -> None:
    first = Played(folder=tmp_path)
    first.ask(tags([first.client(number) for number in range(3)]))
    second = Played(folder=tmp_path)
    with pytest.raises(RefusedError, match="repetition"):
        second.ask(tags([second.client(number) for number in range(3)]))
    assert (tmp_path / "summed.jsonl").stat().st_mode & 0o077 == 0


def test_the_same_question_has_the_same_answer_and_another_one_has_none(played: Played) -> None:
    """As where the answer was lost on the way."""
    clients = [played.client(number) for number in range(3)]
    first, again = (played.ask(tags(clients))["masks"] for _ in range(2))
    assert np.array_equal(first, again)
    with pytest.raises(RefusedError, match="repetition"):
        played.ask(tags(clients[:2]))


def test_another_model_can_be_summed(played: Played) -> None:
    played.ask(tags([played.client(number) for number in range(3)]))
    clients = [played.client(number, model="n" * 64, server_round=2) for number in range(3)]
    played.ask(tags(clients), model="n" * 64, server_round=2)


@pytest.mark.parametrize("own", [2, 4])
@pytest.mark.parametrize("theirs", [2, 4])
def test_the_largest_min_cohort_counts(tmp_path: Path, own: int, theirs: int) -> None:
    played = Played(folder=tmp_path, min_cohort=own)
    clients = [played.client(0, min_cohort=theirs), *(played.client(number) for number in (1, 2))]
    if max(own, theirs) <= 3:
        played.ask(tags(clients))
        return
    with pytest.raises(ProtocolError, match="3 clients in the sum, 4 are asked for"):
        played.ask(tags(clients))


def test_a_sum_is_never_of_one(played: Played) -> None:
    for clients in ([], [played.client(0)]):
        with pytest.raises(ProtocolError, match="too few"):
            played.ask(tags(clients))


def test_weights_cannot_leave_all_but_one_out_of_the_sum(played: Played) -> None:
    clients = [played.client(0, weight=7.9), *(played.client(number, weight=0.01) for number in range(1, 8))]
    with pytest.raises(ProtocolError, match=r"by their weights 8 clients count as 1\.02"):
        played.ask(tags(clients))


CHANGES = [
    ("run", "ffffffffffffffff"),
    ("server_round", 2),
    ("cohort", 7),
    ("model", "n" * 64),
    ("work", "x" * 64),
    ("place", 1),
]


@pytest.mark.parametrize(("name", "value"), CHANGES, ids=[name for name, _ in CHANGES])
def test_a_tag_serves_for_nothing_but_what_it_is_bound_to(played: Played, name: str, value: object) -> None:
    clients = [played.client(number, **{name: value}) for number in range(3)]
    with pytest.raises(ProtocolError, match=r"forged: the tags of clients \[0, 1, 2\] do not count here"):
        played.ask(tags(clients))


FORGED = [
    ("weight", 2.0),
    ("min_cohort", 3),
    ("client", 5),
    ("sealed", bytes(80)),
    ("signature", b""),
]


@pytest.mark.parametrize(("name", "value"), FORGED, ids=[name for name, _ in FORGED])
def test_a_changed_tag_is_named(played: Played, name: str, value: object) -> None:
    clients = [played.client(number) for number in range(3)]
    changed = replace(clients[1].tag, **{name: value})
    with pytest.raises(RefusedError) as caught:
        played.ask([clients[0].tag, changed, clients[2].tag])
    assert set(caught.value.faults) == {changed.client}
    assert not (played.folder / "summed.jsonl").exists()  # the others may be summed
    played.ask(tags([clients[0], clients[2]]))


def test_a_seed_beside_another_tag_is_not_opened(played: Played) -> None:
    """Nor does the key that seals a seed depend on the signature alone: the same tag with another weight opens
    nothing."""
    client = played.client(0)
    private = new_private()
    assert unsealed(client.tag, played.bound(), private) is None
    other = replace(client.tag, weight=2.0)
    own = bytes(played.state.config_records["helper-own-keys"]["private"])  # type: ignore[arg-type]
    assert unsealed(client.tag, played.bound(), own) == client.seed
    assert unsealed(other, played.bound(), own) is None


def test_a_site_cannot_speak_for_another(played: Played) -> None:
    forged = played.client(2, identity=DEVICES[3])
    with pytest.raises(RefusedError) as caught:
        played.ask(tags([played.client(0), played.client(1), forged]))
    assert caught.value.faults == {2: "signed by another device than the one that is pinned here for this client"}


def test_a_stranger_counts_nothing(played: Played) -> None:
    stranger = played.client(11, identity=DEVICES[3])
    with pytest.raises(RefusedError) as caught:
        played.ask(tags([played.client(0), played.client(1), stranger]))
    assert caught.value.faults == {11: "no device is pinned here for this client"}


def test_one_client_twice_is_refused(played: Played) -> None:
    client = played.client(0)
    with pytest.raises(ProtocolError, match=r"replayed: clients \[0\] are there twice"):
        played.ask(tags([client, client, played.client(1)]))


def test_tags_for_other_keys_or_another_config_are_refused(played: Played) -> None:
    clients = [played.client(number) for number in range(3)]
    with pytest.raises(ProtocolError, match="lost state"):
        played.ask(tags(clients), key=bytes(32))
    with pytest.raises(ProtocolError, match="another config"):
        played.ask(tags(clients), config="d" * 64)
    with pytest.raises(ProtocolError, match="lost state"):
        played.ask(tags(clients), run="ffffffffffffffff")


def test_no_vector_is_longer_than_the_model(played: Played) -> None:
    """What a server asks for takes no memory of the helper's beyond that."""
    played.site = replace(played.site, most_values=played.length)
    clients = [played.client(number) for number in range(3)]
    played.length += 1
    with pytest.raises(ProtocolError, match=r"forged: 3 tags of a cohort of 8, 41 values"):
        played.ask(tags(clients))
    played.length -= 1
    played.ask(tags(clients))


def test_no_part_of_the_sum_can_be_taken_from_the_masks_of_all(played: Played) -> None:
    """A server that has one masked vector, and the sum of three masks, is left with noise."""
    played.length = 2000
    clients = [played.client(number) for number in range(3)]
    masks = played.ask(tags(clients))["masks"]
    for part in (clients[:1], clients[:2]):
        left = played.carrier.without(played.added(part), masks, played.length)
        assert looks_random(played.carrier.read(left, played.length), 2**NUMBERS.modulus_bits)


# --- the helper's keys -------------------------------------------------------------------------------------------


def test_clients_take_the_keys_of_the_helper_that_they_have_pinned_and_no_others(played: Played) -> None:
    mine = RunKeys(played.keys.key, signature=b"")
    signed = played.keys
    stranger = signed_keys_of_run(RunKeys(bytes(range(32))), DEVICES[0], RUN, CONFIG)
    pinned = [HELPER_KEY.public]
    assert chosen([stranger, signed], pinned, 1, RUN, CONFIG) == (signed,)
    swapped = replace(signed, key=bytes(range(32)))
    context = replace(signed, public=b"another context")
    for offered, run, config in (
        ([stranger], RUN, CONFIG),
        ([mine], RUN, CONFIG),
        ([swapped], RUN, CONFIG),
        ([context], RUN, CONFIG),
        ([signed], "ffffffffffffffff", CONFIG),
        ([signed], RUN, "d" * 64),
        ([], RUN, CONFIG),
    ):
        with pytest.raises(ProtocolError, match="1 of the 1 helpers that this site has pinned"):
            chosen(offered, pinned, 1, run, config)
    with pytest.raises(ProtocolError, match="keys of 0 helpers, 1 are needed"):
        chosen([], None, 1, RUN, CONFIG)


def test_every_run_has_keys_of_its_own(played: Played) -> None:
    assert played.ask_keys(RUN) == played.keys or played.ask_keys(RUN).key == played.keys.key
    assert played.ask_keys("ffffffffffffffff").key != played.keys.key
    with pytest.raises(ProtocolError, match="16 hexadecimal digits"):
        played.ask_keys("../../etc/passwd")


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf"), 8.1])
def test_no_weight_is_taken_that_no_cohort_can_have(played: Played, weight: float) -> None:
    client = played.client(0, weight=weight)
    assert (fault := fault_of(client.tag, played.bound())) is not None
    assert "a weight of" in fault


def test_a_model_that_differs_in_counters_alone_is_the_same_model() -> None:
    """A server may send what is not trained as it likes: it gets no second sum for it."""
    played = Played(signed=False, length=4, cohort=3)
    numbers = HelperClient(NUMBERS, MaskedIntegers(NUMBERS), {}, seed=0, config_sha256=CONFIG)
    sums = []
    for steps in (1, 2):
        model = {"weight": torch.ones(4), "steps": torch.tensor(steps)}
        instruction = Instruction(1, (0, 1, 2), (1 / 3,) * 3, run=RUN)
        content = with_stage(pack_instruction(instruction, GlobalModel(model)), "masked")
        content["helpers"] = pack_offer([played.keys], 3)
        reply = numbers.masked(
            content, RecordDict(), lambda client, *_: (ClientReport(client), {"weight": torch.ones(4)})
        )
        _, _, sent = unpack_masked_sum(reply)
        work = work_digest(instruction, CONFIG)
        sums.append(([tag for (tag,), _ in sent.values()], {"model": trained_sha256(model), "work": work}))
    played.ask(sums[0][0], **sums[0][1])
    with pytest.raises(RefusedError, match="repetition"):
        played.ask(sums[1][0], **sums[1][1])


def test_a_device_remembers_which_models_it_has_seen(tmp_path: Path) -> None:
    """Though its SuperNode be started anew, and whatever its state is then."""
    folder, device = tmp_path / "keep", DEVICES[0]
    first = {"weight": torch.ones(4)}

    def sealed(version: int) -> dict[str, torch.Tensor]:
        return sealed_model(
            *(first, bytes(32)),
            **{"run": RUN, "config": CONFIG, "version": version, "server_round": version, "previous": "p" * 64},
            identity=HELPER_KEY,
            peers=Peers({0: device.public}),
        )

    def opened(version: int) -> object:
        opener = ModelOpener(CONFIG, device, [HELPER_KEY.public], NotedFile(folder, SEEN_FILE))
        model = sealed(version) if version else first
        return opener.opened(Instruction(9, (0,), (1.0,), run=RUN), model, RecordDict())

    for version in (0, 1, 2, 2):
        opened(version)
    for older in (0, 1):
        with pytest.raises(ProtocolError, match=f"replayed: version {older} of the model, after version 2"):
            opened(older)
    assert len((folder / SEEN_FILE).read_text().splitlines()) == 2
    assert (folder / SEEN_FILE).stat().st_mode & 0o077 == 0
