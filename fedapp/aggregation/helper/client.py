"""The client half of sums through a helper: one message in a round, and nothing is kept for another."""

import logging
from collections.abc import Mapping, Sequence

from flwr.app import RecordDict

from fedapp.aggregation.helper.carrier import Carrier, Hidden, Ints
from fedapp.aggregation.helper.helper_messages import MASKED, pack_masked_sum, unpack_offer
from fedapp.aggregation.helper.run_keys import RunKeys, chosen
from fedapp.aggregation.helper.sealed_model import ModelOpener
from fedapp.aggregation.helper.tags import SLACK, Bound, Tag, mask_key, new_seed, sealed_tag
from fedapp.aggregation.protocol import ClientHalf, Handler, Train
from fedapp.aggregation.whole_numbers.fixed_point import FixedPoint
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.aggregation.whole_numbers.trained_vector import trained_vector
from fedapp.aggregation.whole_numbers.work_digest import work_digest
from fedapp.common.device_keys import Identity
from fedapp.common.errors import ConfigError
from fedapp.common.state_digest import State, trained_sha256
from fedapp.wire.instruction import Instruction, unpack_instruction
from fedapp.wire.reply import ClientReport, Reply

__all__ = ["HelperClient"]

log = logging.getLogger("flwr")


class HelperClient(ClientHalf):
    """`metrics`: by name, the largest value of each metric that goes along. `seed`: the run's. `config_sha256`: of the
    config as this client has resolved it. `helpers`: how many there are in a simulation.

    `identity` signs tags. `pinned`: the keys of the helpers that its operator accepts, all of which must take part;
    None in a simulation. `min_cohort`: the operator's. `opener`: of sealed models, where the server has no model.
    """

    def __init__(
        self,
        numbers: FixedPoint,
        carrier: Carrier,
        metrics: Mapping[str, float],
        *,
        seed: int,
        config_sha256: str,
        helpers: int = 1,
        identity: Identity | None = None,
        pinned: Sequence[bytes] | None = None,
        min_cohort: int = 2,
        opener: ModelOpener | None = None,
    ) -> None:
        self.numbers, self.carrier, self.metrics = numbers, carrier, metrics
        self.seed, self.config_sha256, self.helpers = seed, config_sha256, helpers
        self.identity, self.pinned, self.min_cohort, self.opener = identity, pinned, min_cohort, opener

    @property
    def stages(self) -> Mapping[str, Handler]:
        return {MASKED: self.masked}

    def opened(self, instruction: Instruction, model: State, state: RecordDict) -> State:
        """The model in clear. Raises ProtocolError."""
        return model if self.opener is None else self.opener.opened(instruction, model, state)

    def masked(self, content: RecordDict, state: RecordDict, train: Train) -> RecordDict:
        """Train every client; their masked sum, and each one's tags."""
        instruction, model = unpack_instruction(content)
        try:
            model = self.opened(instruction, model, state)
            keys, cohort = self._keys(content, instruction)
        except ProtocolError as error:
            log.error("this SuperNode sends nothing: %s", error)
            return pack_masked_sum(Reply(tuple(ClientReport(c, str(error)) for c in instruction.clients)), None, {})
        digest, work = trained_sha256(model), work_digest(instruction, self.config_sha256)
        reports: list[ClientReport] = []
        hidden: list[Hidden] = []
        tags: dict[int, list[Tag]] = {}
        for client, share in zip(instruction.clients, instruction.weights, strict=True):
            weight = share * cohort
            report, vector = self._trained(client, weight, cohort, instruction, model, train)
            reports.append(report)
            if vector is None:
                continue
            seeds = [new_seed() for _ in keys]
            tags[client] = []
            for place, (seed, of_helper) in enumerate(zip(seeds, keys, strict=True)):
                run, number = instruction.run, instruction.server_round
                bound = Bound(run, number, cohort, digest, self.config_sha256, work, of_helper.key, place)
                tags[client].append(sealed_tag(seed, bound, client, weight, self.min_cohort, self.identity))
            hidden.append((vector, [self._mask_key(seed, instruction, digest, client) for seed in seeds]))
        carrier = self.carrier.at(cohort)
        carried = carrier.hide(hidden, keys[0].public, len(hidden[0][0])) if hidden else None
        return pack_masked_sum(Reply(tuple(reports)), carried, tags, [of_helper.key for of_helper in keys])

    def _keys(self, content: RecordDict, instruction: Instruction) -> tuple[tuple[RunKeys, ...], int]:
        """The keys of the helpers, and the size of the cohort: what is wrong with either costs no training."""
        offered, cohort = unpack_offer(content)
        keys = chosen(offered, self.pinned, self.helpers, instruction.run, self.config_sha256)
        self.carrier.check_public(keys[0].public)
        try:
            self.numbers.check_two(cohort)
            self.carrier.check_cohort(cohort)
        except ConfigError as error:
            raise ProtocolError("wrong cohort", str(error)) from None
        if cohort < self.min_cohort:
            raise ProtocolError(
                "too few", f"a cohort of {cohort}, this client asks for {self.min_cohort} in a sum (min-cohort)"
            )
        return keys, cohort

    def _trained(
        self, client: int, weight: float, cohort: int, instruction: Instruction, model: State, train: Train
    ) -> tuple[ClientReport, "Ints | None"]:
        if not 0 <= weight <= cohort * (1 + SLACK):
            return ClientReport(client, f"forged: a weight of {weight:g} in a cohort of {cohort}"), None
        return trained_vector(client, weight, instruction, model, train, self.numbers, self.metrics, self.seed)

    @staticmethod
    def _mask_key(seed: bytes, instruction: Instruction, model: str, client: int) -> bytes:
        return mask_key(seed, instruction.run, instruction.server_round, model, client)
