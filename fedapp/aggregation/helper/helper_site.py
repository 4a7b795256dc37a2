"""The helper's half: keys of a run, and what of a sum it gives for the tags of its clients.

Whatever a server asks, it gets the sum over the clients of the tags or nothing: each mask is removed at most once for a
model, all of a sum's together, and no fewer than all of its clients ask for.
"""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from flwr.app import ConfigRecord, RecordDict

from fedapp.aggregation.helper.carrier import Bytes, Carrier
from fedapp.aggregation.helper.helper_messages import (
    HELPER_KEYS,
    HELPER_SUM,
    RESULT,
    SumRequest,
    pack_refusal,
    pack_run_keys,
    pack_sum_reply,
    unpack_sum_request,
)
from fedapp.aggregation.helper.next_model import ModelKeeper
from fedapp.aggregation.helper.released import Released
from fedapp.aggregation.helper.run_keys import RunKeys, signed_keys_of_run
from fedapp.aggregation.helper.tags import Bound, Tag, fault_of, mask_key, unsealed
from fedapp.aggregation.protocol import ClientHalf, Handler, Train
from fedapp.aggregation.whole_numbers.effective_size import effective_size, least_size
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.aggregation.whole_numbers.record_values import bytes_of
from fedapp.common.device_keys import Identity, Peers
from fedapp.common.sealed_boxes import new_private, public_of
from fedapp.wire.records import state_to_arrays, text, whole

__all__ = ["OWN_KEYS", "HelperSite"]

log = logging.getLogger("flwr")

OWN_KEYS = "helper-own-keys"  # of the SuperNode's state
RUN = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True)
class HelperSite(ClientHalf):
    """`config_sha256`: of the config as this helper has resolved it. `identity` signs its keys. `peers`: whose clients'
    tags count; None in a simulation. `min_cohort`: its operator's. `released`: for which models it has removed masks.
    `keeper`: where it makes the next model; None where the server learns the sum. `most_values`: of a
    vector, whatever a server asks for."""

    carrier: Carrier
    config_sha256: str
    released: Released
    identity: Identity | None = None
    peers: Peers | None = None
    min_cohort: int = 2
    keeper: ModelKeeper | None = None
    most_values: int = 1 << 30

    @property
    def stages(self) -> Mapping[str, Handler]:
        return {HELPER_KEYS: self.keys, HELPER_SUM: self.sum}

    def keys(self, content: RecordDict, state: RecordDict, _: Train) -> RecordDict:
        """Public keys of the run; the same ones while this SuperNode runs."""
        asked = content.config_records[HELPER_KEYS]
        run = text(asked["run"])
        if not RUN.fullmatch(run):
            raise ProtocolError("wrong run", "a run has a name of 16 hexadecimal digits")
        record = state.config_records.get(OWN_KEYS)
        if record is None or record["run"] != run:
            secret, public = self.carrier.run_keys()
            record = ConfigRecord({"run": run, "private": new_private(), "secret": secret, "public": public})
            state[OWN_KEYS] = record
        keys = RunKeys(public_of(bytes_of(record["private"])), bytes_of(record["public"]))
        signed = signed_keys_of_run(keys, self.identity, run, self.config_sha256)
        reply = RecordDict({HELPER_KEYS: pack_run_keys(signed)})
        if self.keeper is not None:
            newer = self.keeper.newer(run, whole(asked["version"]), state)
            if newer is not None:
                reply[RESULT] = state_to_arrays(newer)
        return reply

    def sum(self, content: RecordDict, state: RecordDict, _: Train) -> RecordDict:
        """The sum of the masks of these tags, the sum without them, or the next model; or why not."""
        request = unpack_sum_request(content)
        try:
            private, *own = self._own_keys(request.bound, state)
            masks, faults = self._masks(request, private)
            if faults:
                named = ProtocolError("forged", f"the tags of clients {sorted(faults)[:20]} do not count here")
                return pack_refusal(named, faults)
            return self._released(request, masks, (own[0], own[1]), state)
        except ProtocolError as error:
            log.error("nothing is laid bare: %s", error)
            return pack_refusal(error, dict.fromkeys(error.accused, str(error)))

    def _own_keys(self, bound: Bound, state: RecordDict) -> tuple[bytes, bytes, bytes]:
        record = state.config_records.get(OWN_KEYS)
        if record is None or record["run"] != bound.run:
            raise ProtocolError("lost state", "this helper has no keys of this run: it has been started anew")
        private = bytes_of(record["private"])
        if public_of(private) != bound.key:
            raise ProtocolError("lost state", "the tags are for other keys than this helper has: it was started anew")
        if bound.config != self.config_sha256:
            raise ProtocolError("wrong cohort", "the tags are of another config than this helper's")
        return private, bytes_of(record["secret"]), bytes_of(record["public"])

    def _masks(self, request: SumRequest, private: bytes) -> tuple[list[bytes], dict[int, str]]:
        """The keys of the masks; and by client whose tag does not count, why. Raises ProtocolError for a sum that is
        too small, or of which a client is twice."""
        bound, tags = request.bound, request.tags
        twice = [client for client, times in Counter(tag.client for tag in tags).items() if times > 1]
        if twice:
            raise ProtocolError("replayed", f"clients {sorted(twice)[:20]} are there twice")
        if not 0 < request.length <= self.most_values or len(tags) > bound.cohort:
            raise ProtocolError("forged", f"{len(tags)} tags of a cohort of {bound.cohort}, {request.length} values")
        found: list[bytes] = []
        faults: dict[int, str] = {}
        for tag in tags:
            fault = fault_of(tag, bound, peers=self.peers, signed=self.identity is not None)
            seed = unsealed(tag, bound, private) if fault is None else None
            if seed is None:
                faults[tag.client] = fault or "its seed was not sealed for this helper, run and tag"
            else:
                found.append(mask_key(seed, bound.run, bound.server_round, bound.model, tag.client))
        if not faults:
            self._check_size(tags, bound)
        return found, faults

    def _check_size(self, tags: Sequence[Tag], bound: Bound) -> None:
        """The largest of what this helper and the clients ask for counts."""
        least = max(self.min_cohort, *(tag.min_cohort for tag in tags)) if tags else self.min_cohort
        if len(tags) < least:
            raise ProtocolError("too few", f"{len(tags)} clients in the sum, {least} are asked for (min-cohort)")
        worth = effective_size(tag.weight for tag in tags)
        if worth < (smallest := least_size(least)):
            raise ProtocolError(
                "too few",
                f"by their weights {len(tags)} clients count as {worth:.2f} of equal weight, {smallest:g} are asked for"
                " (half of min-cohort)",
            )
        if sum(tag.weight for tag in tags) > bound.cohort * (1 + 1e-6):
            raise ProtocolError("forged", f"the weights of a cohort of {bound.cohort} sum to more than that")

    def _released(
        self, request: SumRequest, masks: Sequence[bytes], keys: tuple[bytes, bytes], state: RecordDict
    ) -> RecordDict:
        bound, length = request.bound, request.length
        carrier = self.carrier.at(bound.cohort)
        clients = [tag.client for tag in request.tags]
        if self.keeper is not None and bound.place == 0:
            before = self.keeper.model(request, state)  # a request that cannot be answered costs no client its turn
            self.released.note(bound.model, clients, request.digest, state)
            total = carrier.uncover(*keys, _carried(request), masks, length, bound.cohort)
            return self.keeper.step(request, before, total, state)
        self.released.note(bound.model, clients, request.digest, state)
        if carrier.gives_masks:
            return pack_sum_reply({"masks": torch.from_numpy(carrier.mask_sum(masks, length))})
        total = carrier.uncover(*keys, _carried(request), masks, length, bound.cohort)
        return pack_sum_reply({"total": torch.from_numpy(total)})


def _carried(request: SumRequest) -> Bytes:
    if request.carried is None:
        raise ProtocolError("truncated", "a question about a sum without the sum")
    return request.carried
