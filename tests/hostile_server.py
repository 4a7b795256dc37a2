"""A server of secure aggregation that does what it likes, and what it then knows.

It holds the secrets of the clients that work for it, asks the real client halves in any order, tells each another story
of who is there and who has survived, and forwards whatever signatures it has.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import torch
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import RecordDict

from fedapp.aggregation.secaggplus.answers import unpack_keys, unpack_revealed, unpack_shared, unpack_signed
from fedapp.aggregation.secaggplus.client import SecAggClient
from fedapp.aggregation.secaggplus.cohort_view import CohortView, Member
from fedapp.aggregation.secaggplus.kept import Secrets
from fedapp.aggregation.secaggplus.least_sum import LeastSum
from fedapp.aggregation.secaggplus.masked_message import pack_masked, unpack_masked_reply
from fedapp.aggregation.secaggplus.member import Sealed, Shared, advertise, share
from fedapp.aggregation.secaggplus.messages import Header, pack_question, pack_signatures, unpack_answers
from fedapp.aggregation.secaggplus.repetition import Repetitions
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.secaggplus.signing import sign_keys, sign_list
from fedapp.aggregation.secaggplus.unmasking import list_digest
from fedapp.aggregation.secaggplus.view_record import pack_view
from fedapp.aggregation.whole_numbers.effective_size import effective_size
from fedapp.aggregation.whole_numbers.work_digest import work_digest
from fedapp.common.device_keys import Identity, Peers
from fedapp.common.state_digest import State
from fedapp.wire.instruction import Instruction
from fedapp.wire.model import GlobalModel
from fedapp.wire.reply import ClientReport

__all__ = ["IDENTITIES", "HostileServer", "Known", "halves"]

RUN, CONFIG = "00112233445566aa", "c" * 64
MODEL = GlobalModel({"w": torch.zeros(3)})
IDENTITIES = [Identity(ec.generate_private_key(ec.SECP384R1())) for _ in range(12)]


def halves(cohort: int, settings: Settings, least: LeastSum, folder: Path | None = None) -> dict[int, SecAggClient]:
    """Devices that pin each other, with all of their operator's limits. `folder`: of what they note of models."""
    peers = Peers({client: IDENTITIES[client].public for client in range(cohort)})
    return {
        client: SecAggClient(
            settings,
            {},
            seed=0,
            config_sha256=CONFIG,
            least=least,
            identity=IDENTITIES[client],
            peers=peers if least.signed else None,
            repetitions=Repetitions(folder / str(client)) if folder is not None else None,
        )
        for client in range(cohort)
    }


@dataclass
class Known:
    """What the server has learnt of a round: by client, under which view and among whom it has masked its vector; by
    owner, who has revealed which share."""

    settings: Settings
    colluders: frozenset[int]
    masked: dict[int, tuple[CohortView, frozenset[int]]] = field(default_factory=dict)
    shared: dict[int, CohortView] = field(default_factory=dict)
    selfs: dict[int, set[int]] = field(default_factory=dict)
    keys: dict[int, set[int]] = field(default_factory=dict)

    def has(self, kind: str, owner: int) -> bool:
        """Whether it can rebuild a client's self-mask seed, or its mask key."""
        if owner not in self.shared:
            return False
        view = self.shared[owner]
        revealed = (self.selfs if kind == "self" else self.keys).get(owner, set())
        return len(revealed | (self.colluders & set(view.holders(owner)))) >= view.needed

    def both_secrets(self) -> list[int]:
        return [owner for owner in self.shared if self.has("self", owner) and self.has("key", owner)]

    def openable(self) -> list[set[int]]:
        """The smallest sets of honest clients over whose vectors it can know the sum."""
        left, found = set(self.masked) - self.colluders, []
        while left:
            part, edge, opens = set(), {min(left)}, True
            while edge:
                client = edge.pop()
                part.add(client)
                left.discard(client)
                opens = opens and self.has("self", client)
                for other in self._tied(client):
                    if self.masked.get(other) == self.masked[client]:
                        edge |= {other} - part
                    else:
                        opens = False  # a mask that no vector takes away
            if opens:
                found.append(part)
        return found

    def _tied(self, client: int) -> Iterable[int]:
        """Whose masks are in a client's vector and not known."""
        view, present = self.masked[client]
        known = {client} if self.has("key", client) else set()
        for other in view.neighbours(client):
            if other in present and other not in self.colluders and not known and not self.has("key", other):
                yield other

    def worth(self, clients: Collection[int]) -> float:
        view = self.masked[min(clients)][0]
        return effective_size(view.by_client[client].weight for client in clients)


class HostileServer:
    """One round against `clients`, of whom `colluders` work for it."""

    def __init__(
        self, clients: Mapping[int, SecAggClient], settings: Settings, random: Random, colluders: Collection[int] = ()
    ) -> None:
        self.clients, self.settings, self.random = clients, settings, random
        self.known = Known(settings, frozenset(colluders))
        self.states = {client: RecordDict() for client in clients}
        self.shared: dict[int, Shared] = {}
        self.signatures: dict[bytes, dict[int, bytes]] = {}  # by list
        self.own: dict[int, Secrets] = {}
        self.view: CohortView

    def play(self, server_round: int, mode: str) -> Known:
        """`mode`: honest (with dropouts), random, or isolate: the standard attack on one client."""
        self.server_round = server_round
        self.known = Known(self.settings, self.known.colluders)
        self.shared, self.signatures = {}, {}
        self._keys()
        others = [self.view] * 4 if mode != "random" else [self.view, self.view, self.view, self._other_view()]
        for client in self._some(0.95):
            self._shares(client, self.random.choice(others))
        everyone = frozenset(self.shared)
        present = [everyone] * 3 + ([frozenset(self._part(everyone))] if mode == "random" else [])
        for client in self._some(0.85 if mode == "honest" else 0.97):
            self._masked(client, self.random.choice(present))
        lists = self._stories(mode, everyone)
        rounds = 1 if mode == "honest" else 2
        for stage in ("consistency", "unmask") * rounds:
            for client in self._some(1.0):
                told = (
                    lists[client]
                    if self.random.random() < 0.95 or mode == "honest"
                    else self.random.choice(list(lists.values()))
                )
                self._last(stage, client, *told)
        if mode == "random":
            for _ in range(4):  # out of turn, and again
                client = self.random.choice(sorted(self.clients))
                self._last(
                    self.random.choice(["consistency", "unmask"]), client, *self.random.choice(list(lists.values()))
                )
                self._masked(client, self.random.choice(present))
        return self.known

    # --- what it tells whom --------------------------------------------------------------------------------------

    def _stories(self, mode: str, everyone: frozenset[int]) -> dict[int, tuple[set[int], set[int]]]:
        """By client, who has survived and who has not."""
        sent = set(self.known.masked) | self.known.colluders
        if mode == "isolate":
            target = self.random.choice(sorted(everyone))
            near = set(self.view.neighbours(target))
            if len(near) == len(everyone) - 1:  # all of them: two camps
                near = set(self.random.sample(sorted(near), len(near) // 2))
            told = {client: (sent - near | ({client} & sent)) for client in self.clients}
        elif mode == "random":
            lists = [sent, sent, set(self._part(sent)), set(self._part(sent))]
            told = {client: self.random.choice(lists) | ({client} & sent) for client in self.clients}
        else:
            told = dict.fromkeys(self.clients, sent)
        found = {}
        for client, survivors in told.items():
            present = self.known.masked[client][1] if client in self.known.masked else everyone
            found[client] = (survivors & present, set(present) - survivors)
        return found

    def _other_view(self) -> CohortView:
        members = list(self.view.members)
        choice = self.random.randrange(3)
        if choice == 0:  # other weights
            weights = [self.random.random() for _ in members]
            members = [
                Member(m.client, w / sum(weights), m.cipher_key, m.mask_key, m.signature)
                for m, w in zip(members, weights, strict=True)
            ]
        elif choice == 1:  # its own keys in place of a client's
            _, *keys = advertise(RUN, self.server_round, members[0].client)
            members[0] = Member(members[0].client, members[0].weight, keys[0], keys[1], members[0].signature)
        model = "f" * 64 if choice == 2 else self.view.model
        return CohortView(RUN, self.server_round, model, tuple(members), self.settings, self.view.work)

    def _part(self, clients: Iterable[int]) -> list[int]:
        share = self.random.choice([0.3, 0.6, 0.9])
        return [client for client in sorted(clients) if self.random.random() < share]

    def _some(self, share: float) -> list[int]:
        found = [client for client in self.clients if self.random.random() < share]
        self.random.shuffle(found)
        return found

    # --- messages -------------------------------------------------------------------------------------------------

    def _ask(self, stage: str, client: int, content: RecordDict) -> RecordDict:
        return self.clients[client].stages[stage](content, self.states[client], _train)

    def _header(self, stage: str, client: int, view: CohortView | None = None) -> Header:
        return Header(stage, RUN, self.server_round, (client,), view.digest if view is not None else b"")

    def _keys(self) -> None:
        weight, members = 1 / len(self.clients), []
        for client in sorted(self.clients):
            if client in self.known.colluders:
                self.own[client], cipher, mask = advertise(RUN, self.server_round, client)
                signature = sign_keys(IDENTITIES[client], RUN, self.server_round, client, cipher, mask)
            else:
                reply = self._ask("keys", client, pack_question(self._header("keys", client)))
                answers, refused = unpack_answers(reply, [client])
                assert not refused
                cipher, mask, signature = unpack_keys(answers[client])
            members.append(Member(client, weight, cipher, mask, signature))
        work = work_digest(self._instruction(0), CONFIG)
        self.view = CohortView(RUN, self.server_round, MODEL.sha256, tuple(members), self.settings, work)

    def _instruction(self, client: int) -> Instruction:
        return Instruction(self.server_round, (client,), (1 / len(self.clients),), run=RUN)

    def _shares(self, client: int, view: CohortView) -> None:
        if client in self.known.colluders:
            _, self.shared[client] = share(self.own[client], self.view)
            return
        content = pack_question(self._header("shares", client, view))
        content["view"] = pack_view(view)
        answers, _ = unpack_answers(self._ask("shares", client, content), [client])
        if client in answers:
            self.shared[client] = unpack_shared(answers[client])
            self.known.shared[client] = view

    def _masked(self, client: int, present: frozenset[int]) -> None:
        if client in self.known.colluders:
            return
        view = self.known.shared.get(client, self.view)
        sealed = {
            other: Sealed(self.shared[other].sealed[client], *self.shared[other].shares[client])
            for other in view.neighbours(client)
            if other in present and client in self.shared[other].sealed
        }
        header = self._header("masked", client, view)
        content = pack_masked(header, self._instruction(client), MODEL, sorted(present), {client: sealed})
        _, packed = unpack_masked_reply(self._ask("masked", client, content), self.settings.batch)
        if packed:
            assert client not in self.known.masked, "a second vector"
            self.known.masked[client] = view, present

    def _last(self, stage: str, client: int, survivors: set[int], dropped: set[int]) -> None:
        if client in self.known.colluders:
            return
        view = self.known.shared.get(client, self.view)
        told = list_digest(view, survivors, dropped)
        lists = {"survivors": sorted(survivors), "dropped": sorted(dropped)}
        content = pack_question(self._header(stage, client, view), **lists)
        have = self.signatures.setdefault(told, {})
        if stage == "unmask":
            for other in self.known.colluders & survivors:
                have[other] = sign_list(IDENTITIES[other], view, other, told)
            content["signatures"] = pack_signatures(have)
        answers, _ = unpack_answers(self._ask(stage, client, content), [client])
        if client not in answers:
            return
        if stage == "consistency":
            have[client] = unpack_signed(answers[client])
            return
        revealed = unpack_revealed(answers[client])
        for owner in revealed.self_shares:
            self.known.selfs.setdefault(owner, set()).add(client)
        for owner in revealed.key_shares:
            self.known.keys.setdefault(owner, set()).add(client)


def _train(client: int, _: Instruction, model: State) -> tuple[ClientReport, State]:
    return ClientReport(client), {name: torch.full_like(value, client) for name, value in model.items()}
