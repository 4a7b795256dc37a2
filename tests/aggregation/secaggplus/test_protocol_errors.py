"""Forged, replayed, reordered, truncated, duplicated messages, of another stage, round, run or cohort: refused by name.

The client's side first, then the server's. Nothing is unmasked in any of them.
"""

from dataclasses import replace

import numpy as np
import pytest
from secure_rounds import MODEL, ROUND, RUN, Played, mask, play

from fedapp.aggregation.secaggplus.cohort_view import CohortView, Member
from fedapp.aggregation.secaggplus.collector import Collector
from fedapp.aggregation.secaggplus.kept import Secrets
from fedapp.aggregation.secaggplus.keys import KeyPair, new_seed
from fedapp.aggregation.secaggplus.least_sum import LeastSum
from fedapp.aggregation.secaggplus.member import advertise, share
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.secaggplus.unmasking import Revealed, unmask
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.aggregation.whole_numbers.work_digest import work_digest
from fedapp.wire.instruction import Instruction

SETTINGS = Settings(bits=12)
VECTOR = np.ones(50, np.int64)


def refused(kind: str, call, *arguments, **options) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises(ProtocolError) as caught:
        call(*arguments, **options)
    assert caught.value.kind == kind, caught.value
    assert str(caught.value).startswith(f"{kind}: ")
    return str(caught.value)


@pytest.fixture
def keys() -> Played:
    """After the stage "keys", of five clients."""
    played = play(5, SETTINGS, upto="keys")
    played.server.close_keys()
    return played


@pytest.fixture
def shares() -> Played:
    played = play(5, SETTINGS, upto="shares")
    played.server.close_shares()
    return played


@pytest.fixture
def masked() -> Played:
    """Client 4 has sent no vector."""
    played = play(5, SETTINGS, gone=((), (), {4}, ()), upto="masked")
    played.server.close_masked()
    return played


def do_mask(played: Played, client: int, **changed: object) -> tuple[Secrets, object]:
    given = {
        "view": played.view,
        "present": played.server.present,
        "sealed": played.server.sealed_for(client),
        "vector": VECTOR,
    } | changed
    return mask(played.secrets[client], **given)  # type: ignore[arg-type]


# --- a client, asked to share ------------------------------------------------------------------------------------


def test_a_stage_comes_once_and_in_its_order(keys: Played, shares: Played, masked: Played) -> None:
    view = keys.view
    kept, _ = share(keys.secrets[0], view)
    refused("replayed", share, kept, view)
    refused("wrong stage", mask, keys.secrets[0], view, range(5), {}, VECTOR)
    refused("wrong stage", unmask, keys.secrets[0], view, range(5), ())
    refused("wrong stage", unmask, shares.secrets[0], shares.view, range(5), ())
    done, _ = do_mask(shares, 0)
    refused("replayed", mask, done, shares.view, shares.server.present, shares.server.sealed_for(0), VECTOR)
    refused("replayed", share, masked.secrets[0], masked.view)


def test_another_round_or_run_is_refused(keys: Played, shares: Played, masked: Played) -> None:
    for number in (ROUND - 1, ROUND + 1):
        refused("wrong round", share, keys.secrets[0], replace(keys.view, server_round=number))
        refused("wrong round", do_mask, shares, 0, view=replace(shares.view, server_round=number))
    refused("wrong run", share, keys.secrets[0], replace(keys.view, run="ff" * 8))
    refused("wrong run", do_mask, shares, 0, view=replace(shares.view, run="ff" * 8))
    refused("wrong run", unmask, masked.secrets[0], replace(masked.view, run="ff" * 8), range(4), [4])


def test_a_cohort_with_other_keys_than_one_s_own_is_refused(keys: Played) -> None:
    """A replay of another round's cohort, or a server in the middle."""
    other = play(5, SETTINGS, upto="keys").server.close_keys()
    refused("forged", share, keys.secrets[0], other)
    without = replace(keys.view, members=keys.view.members[1:])
    without = replace(without, members=tuple(replace(m, weight=0.25) for m in without.members))
    refused("forged", share, keys.secrets[0], without)


def changed_member(view: CohortView, client: int, **changes: object) -> CohortView:
    members = [replace(m, **changes) if m.client == client else m for m in view.members]  # type: ignore[arg-type]
    return replace(view, members=tuple(members))


def test_an_impossible_cohort_is_refused(keys: Played) -> None:
    view, me = keys.view, keys.secrets[0]
    for weight in (float("nan"), float("inf"), -0.2, 0.3):
        refused("forged", share, me, changed_member(view, 3, weight=weight))
    refused("forged", share, me, changed_member(view, 3, mask_key=view.members[2].mask_key))
    refused("forged", share, me, changed_member(view, 3, mask_key=b"\x02" * 20))
    refused("forged", share, me, changed_member(view, 3, cipher_key=b"\x02" + b"\xff" * 32))
    refused("wrong cohort", share, me, replace(view, members=(*view.members, view.members[0])))
    refused("wrong cohort", share, me, replace(view, members=view.members[::-1]))
    refused("wrong cohort", share, me, replace(view, members=view.members[:1]))


def test_a_client_refuses_a_cohort_that_is_too_small_for_it(keys: Played, shares: Played, masked: Played) -> None:
    assert share(keys.secrets[0], keys.view, least=LeastSum(5))
    assert "min-cohort" in refused("too few", share, keys.secrets[0], keys.view, least=LeastSum(6))
    refused("too few", mask, shares.secrets[0], shares.view, shares.server.present, {}, VECTOR, least=LeastSum(6))
    assert unmask(masked.secrets[0], masked.view, range(4), [4], least=LeastSum(4))
    refused("too few", unmask, masked.secrets[0], masked.view, range(4), [4], least=LeastSum(5))


def test_a_cohort_is_no_larger_than_its_weights_make_it(keys: Played) -> None:
    """With zero weights a server would have one update alone in the sum."""
    weights = [0.96, 0.01, 0.01, 0.01, 0.01]
    members = tuple(replace(m, weight=w) for m, w in zip(keys.view.members, weights, strict=True))
    alone = replace(keys.view, members=members)
    assert "count as 1.08" in refused("too few", share, keys.secrets[0], alone, least=LeastSum(5))
    assert "count as 1.08" in refused("too few", share, keys.secrets[0], alone, least=LeastSum(2))


# --- a client, asked to mask -------------------------------------------------------------------------------------


def test_forged_missing_and_foreign_shares_are_refused(shares: Played) -> None:
    sealed = shares.server.sealed_for(0)
    refused("forged", do_mask, shares, 0, sealed=sealed | {1: sealed[2]})  # another's
    refused("forged", do_mask, shares, 0, sealed=sealed | {1: shares.server.sealed_for(2)[1]})  # for another
    refused("forged", do_mask, shares, 0, sealed=sealed | {1: sealed[1]._replace(content=sealed[1].content[:-10])})
    refused("forged", do_mask, shares, 0, sealed=sealed | {1: sealed[1]._replace(content=b"")})
    refused("forged", do_mask, shares, 0, sealed=sealed | {1: sealed[1]._replace(of_key=sealed[2].of_key)})
    refused("forged", do_mask, shares, 0, sealed={c: s for c, s in sealed.items() if c != 1})
    refused("forged", do_mask, shares, 0, sealed=sealed | {0: sealed[1]})
    earlier = play(5, SETTINGS, upto="shares").server
    earlier.close_shares()
    refused("forged", do_mask, shares, 0, sealed=sealed | {1: earlier.sealed_for(0)[1]})  # replayed from another round


def test_another_view_than_before_is_refused(shares: Played) -> None:
    """Another model, other work, another weight, another key: each is another cohort."""
    view = shares.view
    refused("wrong cohort", do_mask, shares, 0, view=replace(view, work="another"))
    refused("wrong cohort", do_mask, shares, 0, view=replace(view, model="another"))
    refused("wrong cohort", do_mask, shares, 0, view=replace(view, settings=replace(SETTINGS, bits=11)))
    refused("wrong cohort", do_mask, shares, 0, view=changed_member(view, 3, weight=0.1))
    refused("wrong cohort", do_mask, shares, 0, view=changed_member(view, 3, mask_key=KeyPair(new_seed()).public))


@pytest.mark.parametrize("present", [(0, 1, 2, 3, 4, 4), (0, 1, 2, 3, 9), (1, 2, 3, 4)])
def test_a_forged_list_of_who_is_there_is_refused(shares: Played, present: tuple[int, ...]) -> None:
    refused("forged", do_mask, shares, 0, present=present)


def test_a_client_whose_secret_could_not_be_rebuilt_sends_nothing(shares: Played) -> None:
    sealed = {c: s for c, s in shares.server.sealed_for(0).items() if c in (1, 2)}
    refused("too few", do_mask, shares, 0, present=(0, 1, 2), sealed=sealed)


# --- a client, asked to reveal -----------------------------------------------------------------------------------


def test_both_secrets_of_a_client_are_never_revealed(masked: Played) -> None:
    me, view = masked.secrets[0], masked.view
    refused("both secrets", unmask, me, view, range(4), [3, 4])
    refused("both secrets", unmask, me, view, range(5), [4])
    found = unmask(me, view, range(4), [4])
    assert not set(found.self_shares) & set(found.key_shares)
    assert set(found.self_shares) == {0, 1, 2, 3}
    assert set(found.key_shares) == {4}


@pytest.mark.parametrize(
    ("survivors", "dropped", "kind"),
    [
        ((1, 2, 3), (0, 4), "forged"),  # this client has sent its vector
        ((0, 1, 2, 3), (), "wrong cohort"),
        ((0, 1, 2, 3), (4, 4), "wrong cohort"),
        ((0, 1, 2, 3, 3), (4,), "forged"),
        ((0, 1, 2, 3, 7), (4,), "forged"),
        ((0, 1, 2), (3, 4), "too few"),
    ],
)
def test_a_forged_list_of_survivors_is_refused(
    masked: Played, survivors: tuple[int, ...], dropped: tuple[int, ...], kind: str
) -> None:
    refused(kind, unmask, masked.secrets[0], masked.view, survivors, dropped)


def test_a_cohort_that_grew_too_large_for_the_modulus_is_not_begun() -> None:
    played = play(9, Settings(bits=13, modulus_bits=16), upto="keys")
    assert "modulus_bits=16" in refused("wrong cohort", played.server.close_keys)


# --- the server --------------------------------------------------------------------------------------------------


def test_the_server_refuses_keys_that_are_forged_or_replayed() -> None:
    server = Collector(
        SETTINGS, run=RUN, server_round=1, model=MODEL, weights={0: 1.0, 1: 1.0, 2: 1.0}, length=5, minimum=2
    )
    pairs = [advertise(RUN, 1, client)[1:] for client in range(3)]
    server.add_keys(0, *pairs[0])
    refused("replayed", server.add_keys, 0, *pairs[1])
    refused("replayed", server.add_keys, 1, *pairs[0])  # another's keys
    refused("replayed", server.add_keys, 1, pairs[1][0], pairs[1][0])
    refused("forged", server.add_keys, 7, *pairs[1])
    refused("truncated", server.add_keys, 1, pairs[1][0][:20], pairs[1][1])
    refused("forged", server.add_keys, 1, b"\x02" + b"\xff" * 32, pairs[1][1])
    refused("wrong stage", server.unmask)
    refused("too few", server.close_keys)
    server.add_keys(1, *pairs[1])
    assert len(server.close_keys().members) == 2
    refused("wrong stage", server.add_keys, 2, *pairs[2])


def test_the_server_refuses_shares_that_are_forged_or_come_twice(keys: Played) -> None:
    server = keys.server
    _, good = share(keys.secrets[0], keys.view)
    refused("forged", server.add_shares, 9, good)
    refused("forged", server.add_shares, 1, good)  # another's: for other holders
    refused("forged", server.add_shares, 0, replace(good, sealed={1: good.sealed[1]}))
    refused("forged", server.add_shares, 0, replace(good, shares={0: good.shares[0]}))
    refused("wrong stage", server.add_masked, [0], np.zeros(50, np.uint32))
    server.add_shares(0, good)
    refused("replayed", server.add_shares, 0, good)
    refused("too few", server.close_shares)
    refused("wrong stage", server.unmask)


def test_the_server_refuses_vectors_that_are_truncated_or_come_twice(shares: Played) -> None:
    server, vector = shares.server, np.zeros(50, np.uint32)
    before = server._total.copy()
    refused("truncated", server.add_masked, [0], vector[:49])
    refused("truncated", server.add_masked, [0], vector.astype(np.uint64))
    refused("forged", server.add_masked, [], vector)
    refused("forged", server.add_masked, [0, 0], vector)
    refused("forged", server.add_masked, [0, 9], vector)
    refused("too few", server.close_masked)
    assert np.array_equal(server._total, before)
    server.add_masked([0], vector)
    refused("replayed", server.add_masked, [0], vector)
    refused("replayed", server.add_masked, [0, 1], vector)
    refused("wrong stage", server.add_revealed, 0, Revealed({}, {}))
    refused("wrong stage", server.unmask)


def test_the_server_refuses_shares_that_it_did_not_ask_for(masked: Played) -> None:
    server = masked.server
    good = unmask(masked.secrets[0], masked.view, server.survivors, server.dropped)
    refused("forged", server.add_revealed, 4, good)
    refused("forged", server.add_revealed, 0, replace(good, key_shares={}))
    refused("both secrets", server.add_revealed, 0, replace(good, key_shares=dict(good.self_shares)))
    server.add_revealed(0, good)
    refused("replayed", server.add_revealed, 0, good)
    refused("too few", server.unmask)


def test_a_forged_share_is_named_and_left_out_and_too_many_unmask_nothing(masked: Played) -> None:
    server, secrets = masked.server, masked.secrets
    for client in range(4):
        given = unmask(secrets[client], masked.view, server.survivors, server.dropped)
        if client == 0:
            given = replace(given, self_shares=given.self_shares | {1: bytes(16), 2: given.self_shares[3]})
        server.add_revealed(client, given)
    assert server.refused == [
        "forged: client 0's share of client 1's secret",
        "forged: client 0's share of client 2's secret",
    ]
    # Of five holders one has gone and one has forged: three are left of the four that are needed.
    assert server.view.needed == 4
    refused("too few", server.unmask)


def test_a_dealer_s_forged_shares_are_found(shares: Played) -> None:
    """Shares that fit their commitments and yet are of another secret: the sum must not be unmasked wrongly."""
    played = play(4, SETTINGS, upto="keys")
    view = played.server.close_keys()
    for client in range(4):
        kept, shared = share(played.secrets[client], view)
        if client == 2:
            shared = replace(shared, seed=bytes(16))
        played.secrets[client] = kept
        played.server.add_shares(client, shared)
    present = played.server.close_shares()
    for client in range(4):
        kept, vector = mask(played.secrets[client], view, present, played.server.sealed_for(client), VECTOR)
        played.secrets[client] = kept
        played.server.add_masked([client], vector)
    survivors = played.server.close_masked()
    for client in range(4):
        played.server.add_revealed(client, unmask(played.secrets[client], view, survivors, ()))
    assert "client 2" in refused("forged", played.server.unmask)


def test_a_vector_that_was_not_masked_spoils_the_sum_and_is_found() -> None:
    played = play(4, SETTINGS, upto="shares")
    present = played.server.close_shares()
    for client in range(4):
        kept, vector = mask(played.secrets[client], played.view, present, played.server.sealed_for(client), VECTOR)
        played.secrets[client] = kept
        played.server.add_masked([client], np.zeros_like(vector) if client == 1 else vector)
    survivors = played.server.close_masked()
    for client in range(4):
        played.server.add_revealed(client, unmask(played.secrets[client], played.view, survivors, ()))
    refused("forged", played.server.unmask)


def test_clients_that_were_told_different_things_have_nothing_in_common() -> None:
    """A server that gives client 0 another weight, or another model, than the rest."""
    played = play(4, SETTINGS, upto="keys")
    view = played.server.close_keys()
    other = replace(view, model="another")
    for client in range(4):
        kept, shared = share(played.secrets[client], other if client == 0 else view)
        played.secrets[client] = kept
        played.server.add_shares(client, shared)
    present = played.server.close_shares()
    for client in range(4):
        given = (present, played.server.sealed_for(client), VECTOR)
        refused("forged", mask, played.secrets[client], other if client == 0 else view, *given)


def test_members_are_bound_by_the_digest() -> None:
    member = Member(0, 0.5, b"a" * 33, b"b" * 33)
    view = CohortView(RUN, 1, MODEL, (member, Member(1, 0.5, b"c" * 33, b"d" * 33)), SETTINGS)
    digests = {
        view.digest,
        replace(view, run="other").digest,
        replace(view, server_round=2).digest,
        replace(view, model="other").digest,
        replace(view, work="other").digest,
        replace(view, settings=replace(SETTINGS, threshold=2)).digest,
        replace(view, settings=replace(SETTINGS, clip=1.0)).digest,
        changed_member(view, 1, weight=0.25).digest,
        replace(view, members=(member, replace(view.members[1], client=2))).digest,
        changed_member(view, 1, cipher_key=b"e" * 33).digest,
    }
    assert len(digests) == 10


def test_work_is_all_that_an_update_follows_from() -> None:
    """But for the weights, which the members have, and the model."""
    asked = Instruction(ROUND, (0,), (1.0,), lr_factor=0.5, run=RUN, plan={"noise": {"std": 0.1}})
    digests = {
        work_digest(asked, "config"),
        work_digest(asked, "another config"),
        work_digest(replace(asked, lr_factor=0.25), "config"),
        work_digest(replace(asked, each=True), "config"),
        work_digest(replace(asked, deliver=True), "config"),
        work_digest(replace(asked, plan={"noise": {"std": 0.2}}), "config"),
        work_digest(replace(asked, plan={"clip": {"std": 0.1}}), "config"),
        work_digest(replace(asked, plan={}), "config"),
    }
    assert len(digests) == 8
    others = replace(asked, clients=(0, 1), weights=(0.5, 0.5))
    assert work_digest(others, "config") == work_digest(asked, "config")  # each SuperNode hosts others
