"""The client half of SecAgg+: each client of a SuperNode keeps its own secrets and masks its own update.

What goes to the server: public keys, sealed shares, the sum of masked vectors, and shares of others' secrets. Metrics
of training are part of the masked vector. Of a single client the server learns whether it took part, and under
differential privacy what it has spent.
"""

import logging
from collections.abc import Callable, Mapping

import numpy as np
import torch
from flwr.app import RecordDict
from numpy.typing import NDArray

from fedapp.aggregation.protocol import ClientHalf, Handler, Train
from fedapp.aggregation.secaggplus import member as protocol
from fedapp.aggregation.secaggplus.answers import key_answers, revealed_answers, shared_answers, signed_answers
from fedapp.aggregation.secaggplus.batches import BatchSums
from fedapp.aggregation.secaggplus.cohort_view import CohortView
from fedapp.aggregation.secaggplus.kept import Secrets
from fedapp.aggregation.secaggplus.least_sum import ANY, LeastSum
from fedapp.aggregation.secaggplus.masked_message import pack_masked_reply, unpack_masked
from fedapp.aggregation.secaggplus.messages import (
    Entries,
    Header,
    pack_answers,
    unpack_header,
    unpack_signatures,
    unpack_survivors,
)
from fedapp.aggregation.secaggplus.repetition import Repetitions
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.secaggplus.signing import check_signed_keys, sign_keys, sign_list
from fedapp.aggregation.secaggplus.state import (
    begin_round,
    forget,
    keep_secrets,
    keep_view,
    kept_view,
    take_secrets,
)
from fedapp.aggregation.secaggplus.unmasking import agree, unmask
from fedapp.aggregation.secaggplus.view_record import unpack_view
from fedapp.aggregation.whole_numbers.noised_sum import noised_vector
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.aggregation.whole_numbers.quantise import pack
from fedapp.aggregation.whole_numbers.trained_vector import trained_vector
from fedapp.aggregation.whole_numbers.work_digest import work_digest
from fedapp.common.device_keys import Identity, Peers
from fedapp.common.state_digest import State, state_sha256
from fedapp.privacy.noised_integers import NoisedIntegers
from fedapp.wire.instruction import Instruction
from fedapp.wire.reply import ClientReport, Reply

__all__ = ["SecAggClient"]

log = logging.getLogger("flwr")


class SecAggClient(ClientHalf):
    """`metrics`: by name, the largest value of each metric that goes along with the update. `seed`: the run's.
    `config_sha256`: of the config as this client has resolved it.

    `least`: what is asked of the sum, below which nothing is sent. `identity` signs keys and the list of survivors of a
    round; with `peers` all of a cohort must be theirs. `repetitions`: for which models shares were revealed. `noised`:
    how an update becomes whole numbers with noise; None: by this protocol's own rounding.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Mapping[str, float],
        *,
        seed: int,
        config_sha256: str = "",
        least: LeastSum = ANY,
        identity: Identity | None = None,
        peers: Peers | None = None,
        repetitions: Repetitions | None = None,
        noised: NoisedIntegers | None = None,
    ) -> None:
        self.noised = noised
        self.settings, self.metrics, self.seed, self.config_sha256 = settings, metrics, seed, config_sha256
        self.least, self.identity, self.peers, self.repetitions = least, identity, peers, repetitions

    @property
    def stages(self) -> Mapping[str, Handler]:
        return {
            "keys": self.keys,
            "shares": self.shares,
            "masked": self.masked,
            "consistency": self.consistency,
            "unmask": self.unmask,
        }

    # --- the stages --------------------------------------------------------------------------------------

    def keys(self, content: RecordDict, state: RecordDict, _: Train) -> RecordDict:
        """Fresh keys of each client for this round."""
        header = unpack_header(content)

        def answer(client: int) -> Entries:
            secrets, cipher_key, mask_key = protocol.advertise(header.run, header.server_round, client)
            keep_secrets(state, secrets)
            told = (header.run, header.server_round, client, cipher_key, mask_key)
            return key_answers(
                cipher_key, mask_key, sign_keys(self.identity, *told) if self.identity is not None else b""
            )

        try:
            _expect_stage(header, "keys")
            if self.least.signed and len(header.clients) > 1:
                raise ProtocolError("forged", f"a device is one client, and is asked for keys of {len(header.clients)}")
            begin_round(state, header.run, header.server_round)
        except ProtocolError as error:
            return pack_answers(header, {}, dict.fromkeys(header.clients, error))
        return _answered(header, answer)

    def shares(self, content: RecordDict, state: RecordDict, _: Train) -> RecordDict:
        """Each client's shares of its secrets, sealed for its neighbours."""
        header = unpack_header(content)
        view = unpack_view(content.config_records["view"], self.settings)

        def answer(client: int) -> Entries:
            secrets, shared = protocol.share(take_secrets(state, client), view, least=self.least)
            keep_secrets(state, secrets)
            return shared_answers(shared)

        try:
            _expect_stage(header, "shares")
            _expect_view(header, view)
            if self.least.signed:
                check_signed_keys(view, self.peers)
        except ProtocolError as error:
            return pack_answers(header, {}, dict.fromkeys(header.clients, error))
        reply = _answered(header, answer)
        keep_view(state, view)
        return reply

    def masked(self, content: RecordDict, state: RecordDict, train: Train) -> RecordDict:
        """Train every client, and send the sum of their masked updates; that of an incomplete batch apart."""
        header = unpack_header(content)
        instruction, model, present, sealed = unpack_masked(content)
        ready: dict[int, Secrets] = {}
        reports: list[ClientReport] = []
        accused: dict[int, tuple[int, ...]] = {}
        view: CohortView | None = None
        for client in instruction.clients:  # before any of them trains, and pays for it
            try:
                _expect_stage(header, "masked")
                view = view or self._view_of(header, instruction, model, state)
                secrets = take_secrets(state, client)
                if self.repetitions is not None:
                    self.repetitions.check(view, present)
                ready[client] = protocol.receive(secrets, view, present, sealed[client], least=self.least)
            except ProtocolError as error:
                log.error("client %d sends nothing: %s", client, error)
                reports.append(ClientReport(client, rejected=str(error)))
                if error.accused:
                    accused[client] = error.accused
        sums = BatchSums(self.settings.batch)
        for client, secrets in ready.items():
            assert view is not None
            report, vector = self._vector(client, instruction, model, train, view)
            reports.append(report)
            if vector is None:
                continue
            sums.add([client], protocol.apply_masks(secrets, view, vector))
            keep_secrets(state, secrets)
        settings = view.settings if view is not None else self.settings
        packed = {part: torch.from_numpy(pack(vector, settings)) for part, vector in sums.vectors.items()}
        reply = Reply(tuple(sorted(reports, key=lambda report: report.client)))
        return pack_masked_reply(header, reply, packed, accused)

    def consistency(self, content: RecordDict, state: RecordDict, _: Train) -> RecordDict:
        """Each client's signature of the list of survivors: the only one for which it will reveal anything."""
        header, identity = unpack_header(content), self.identity
        survivors, dropped = unpack_survivors(content)

        def answer(client: int) -> Entries:
            if identity is None:
                raise ProtocolError("wrong stage", "this SuperNode has no key to sign with (node-config signing-key)")
            secrets = agree(take_secrets(state, client), view, survivors, dropped, self.least)
            keep_secrets(state, secrets)
            return signed_answers(sign_list(identity, view, client, secrets.agreed))

        try:
            _expect_stage(header, "consistency")
            view = kept_view(state, self.settings)
            _expect_view(header, view)
        except ProtocolError as error:
            return pack_answers(header, {}, dict.fromkeys(header.clients, error))
        return _answered(header, answer)

    def unmask(self, content: RecordDict, state: RecordDict, _: Train) -> RecordDict:
        """Each client's shares of the secrets that unmask the sum. Whatever comes of it, it keeps none of them."""
        header = unpack_header(content)
        survivors, dropped = unpack_survivors(content)
        signatures = unpack_signatures(content)
        try:
            _expect_stage(header, "unmask")
            view = kept_view(state, self.settings)
            _expect_view(header, view)

            def answer(client: int) -> Entries:
                secrets = take_secrets(state, client)
                revealed = unmask(secrets, view, survivors, dropped, signatures, least=self.least)
                if self.repetitions is not None:
                    self.repetitions.note(view, view.component(client, survivors))
                return revealed_answers(revealed)

            return _answered(header, answer)
        except ProtocolError as error:
            return pack_answers(header, {}, dict.fromkeys(header.clients, error))
        finally:
            forget(state)

    # --- training -----------------------------------------------------------------------------------------------

    def _view_of(self, header: Header, instruction: Instruction, model: State, state: RecordDict) -> CohortView:
        view = kept_view(state, self.settings)
        _expect_view(header, view)
        if (instruction.run, instruction.server_round) != (header.run, header.server_round):
            raise ProtocolError(
                "wrong round", "the instruction to train is about another run or round than the message"
            )
        if state_sha256(dict(model)) != view.model:
            raise ProtocolError("wrong cohort", "the model is another one than the cohort has agreed on")
        if work_digest(instruction, self.config_sha256) != view.work:
            raise ProtocolError("wrong cohort", "the instruction or the config is another one than the cohort's")
        return view

    def _vector(
        self, client: int, instruction: Instruction, model: State, train: Train, view: CohortView
    ) -> tuple[ClientReport, NDArray[np.int64] | None]:
        """What may be said of a client's training, and its update with its metrics, quantised."""
        if self.noised is not None:
            return noised_vector(client, self.noised, instruction, model, train)
        weight = view.by_client[client].weight * len(view.members)
        return trained_vector(client, weight, instruction, model, train, self.settings, self.metrics, self.seed)


def _answered(header: Header, answer: Callable[[int], Entries]) -> RecordDict:
    """Every client's answer, or why it does not answer; it concerns that client alone."""
    answers: dict[int, Entries] = {}
    refused: dict[int, ProtocolError] = {}
    for client in header.clients:
        try:
            answers[client] = answer(client)
        except ProtocolError as why:
            log.error("client %d does not answer: %s", client, why)
            refused[client] = why
    return pack_answers(header, answers, refused)


def _expect_stage(header: Header, stage: str) -> None:
    if header.stage != stage:
        raise ProtocolError("wrong stage", f"a message of the stage {header.stage} in that of {stage}")


def _expect_view(header: Header, view: CohortView) -> None:
    if header.run != view.run:
        raise ProtocolError("wrong run", f"this SuperNode takes part in run {view.run}, not {header.run}")
    if header.server_round != view.server_round:
        raise ProtocolError(
            "wrong round", f"this SuperNode takes part in round {view.server_round}, not {header.server_round}"
        )
    if header.digest != view.digest:
        raise ProtocolError("wrong cohort", "this is about another cohort, model or settings than before")
