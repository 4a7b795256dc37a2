"""A run of client-level DP in one process, without messages: what it releases, round by round.

Cohorts, clipping and noise are those of a real run, from the same parts of the config. Where each client adds its own
noise, whole numbers are summed modulo 2^modulus_bits without masks, which cancel in a real sum.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedapp.common.errors import ConfigError
from fedapp.config import Config
from fedapp.data.shards import Shards
from fedapp.learning.build import Parts, build_training, optimizer_factory
from fedapp.learning.optimizer_step import make_optimizer
from fedapp.learning.training import LocalTraining
from fedapp.models.shared_state import load_shared, shared_state
from fedapp.privacy.client_level.central import CentralClientDp
from fedapp.privacy.client_level.distributed import DistributedClientDp
from fedapp.privacy.noise import make_noise
from fedapp.privacy.option import PrivacyOption, privacy_of
from fedapp.updates.steps import UpdateSteps, flatten, unflatten

__all__ = ["ClientRun"]


@dataclass(frozen=True)
class ClientRun:
    """The run that `config` describes; `parts` are made of it, and `shards` are its clients' data. Raises ConfigError
    for one without client-level DP."""

    config: Config
    parts: Parts
    shards: Shards

    @cached_property
    def privacy(self) -> CentralClientDp | DistributedClientDp:
        found: PrivacyOption = privacy_of(self.config)
        if not isinstance(found, CentralClientDp | DistributedClientDp):
            raise ConfigError("privacy: what is attacked here is a run with privacy=client_dp")
        return found

    @cached_property
    def template(self) -> dict[str, Tensor]:
        """What of the model is summed, at its initial state."""
        shared = shared_state(self.parts.model).items()
        return {name: value.detach().clone() for name, value in shared if value.is_floating_point()}

    def released(self, canaries: Tensor, members: Tensor) -> Iterator[Tensor]:
        """The model (n,) after each round, and the initial one before. Beside the data's clients there are those of
        `canaries` (m, n) that are `members` (m,), whose updates are always these. Who is out is not there, or sends
        zeros: as accounts of this run's form mean it."""
        config, rounds = self.config, self.config.federation.num_rounds
        vector = torch.nn.Parameter(flatten(self.template, self.template))
        factory = optimizer_factory("strategy.server_optimizer", config.strategy.server_optimizer)
        optimizer = make_optimizer(factory, [vector])
        if isinstance(self.privacy, DistributedClientDp):  # there those who are out send zeros, with their noise
            canaries, members = canaries * members[:, None], torch.ones_like(members)
        own = [config.federation.num_clients + int(number) for number in members.nonzero().flatten()]
        registry = [*range(config.federation.num_clients), *own]
        steps = UpdateSteps(self.privacy.steps(config, self.parts))
        yield vector.detach().clone()
        for server_round in range(1, rounds + 1):
            if isinstance(self.privacy, CentralClientDp):
                mean = self._central(steps, registry, vector.detach(), canaries, server_round)
            else:
                mean = self._distributed(registry, vector.detach(), canaries, server_round)
            vector.grad = -mean.to(vector)
            optimizer.step()
            yield vector.detach().clone()

    def _central(
        self, steps: UpdateSteps, registry: Sequence[int], vector: Tensor, canaries: Tensor, server_round: int
    ) -> Tensor:
        assert isinstance(self.privacy, CentralClientDp)
        sampling, plan = self.privacy.sampling(self.config), steps.plan(server_round)
        full = steps.template(self.template)
        total = torch.zeros(sum(value.numel() for value in full.values()), dtype=torch.float64)
        for client in sampling.draw(registry, server_round):
            update = unflatten(self._update(client, vector, canaries, server_round), self.template)
            sent = steps.on_client(update, self.template, sampling.unit, plan, {})
            total += sampling.unit * flatten(sent, full).double()
        noised = steps.on_total(unflatten(total, full), 0.0, (), plan, 0.0)
        return flatten(noised, self.template) / (sampling.unit * sampling.expected)

    def _distributed(self, registry: Sequence[int], vector: Tensor, canaries: Tensor, server_round: int) -> Tensor:
        assert isinstance(self.privacy, DistributedClientDp)
        made = self.privacy.noised_integers(self.config, self.parts)
        drawn = make_noise("os_entropy").generator.permutation(len(registry))[: made.expected]
        total = np.zeros(made.length, np.int64)
        for place in drawn:
            update = self._update(registry[int(place)], vector, canaries, server_round)
            total += made.encode(update.double().numpy(), server_round)
        return torch.from_numpy(made.decode(_wrapped(total, made.sums.modulus_bits), server_round)) / len(drawn)

    def _update(self, client: int, vector: Tensor, canaries: Tensor, server_round: int) -> Tensor:
        """A client's weighted update (n,), before it is clipped."""
        if client >= self.config.federation.num_clients:
            return canaries[client - self.config.federation.num_clients]
        examples = self.shards.of(client).train
        load_shared(self.parts.model, {**shared_state(self.parts.model), **unflatten(vector, self.template)})
        self._training(self.parts.model, examples, seed=(self.config.run.seed, server_round, client))
        state = {name: value for name, value in shared_state(self.parts.model).items() if name in self.template}
        weight = self.privacy.keys.weight(len(examples))
        return (flatten(state, self.template) - vector) * weight

    @cached_property
    def _training(self) -> LocalTraining:
        return build_training(self.config, self.parts)


def _wrapped(total: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Modulo 2^bits, as numbers around zero."""
    half = np.int64(1) << (bits - 1)
    found: NDArray[np.int64] = ((total + half) & ((np.int64(1) << bits) - 1)) - half
    return found
