"""Where the sum goes to the clients: the helper adds the mean to the model and seals the next one for them."""

import math
import secrets
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import RecordDict
from numpy.typing import NDArray
from torch import Tensor

from fedapp.aggregation.helper.helper_messages import SumRequest, pack_sum_reply
from fedapp.aggregation.helper.run_store import KeptModel, RunStore
from fedapp.aggregation.helper.sealed_model import about_of, is_sealed, open_sealed_model, sealed_model
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.aggregation.whole_numbers.sum_reading import SumReading
from fedapp.common.device_keys import Identity, Peers
from fedapp.common.state_digest import State, state_sha256, trained_sha256
from fedapp.updates.step import UpdateRejected
from fedapp.updates.steps import UpdateSteps, unflatten

__all__ = ["METRICS", "ModelKeeper"]

METRICS = "metrics"  # of a reply: the sums of metrics, for the server
KEY_BYTES = 32


@dataclass(frozen=True)
class ModelKeeper:
    """`reading`: of a sum. `steps`: the run's, of which their part on the total is done here. `store`: of the run's key
    and its newest model."""

    reading: SumReading
    steps: UpdateSteps
    store: RunStore
    config_sha256: str
    identity: Identity | None = None
    peers: Peers | None = None

    def newer(self, run: str, version: int, state: RecordDict) -> State | None:
        """The newest model of a run where the server has an older one, as it does when it was stopped between a sum and
        its checkpoint."""
        kept = self.store.load(run, state)
        if kept is None or kept.version <= version:
            return None
        return kept.sealed

    def model(self, request: SumRequest, state: RecordDict) -> tuple[State, KeptModel | None]:
        """The model in clear that the clients began with, and what is kept of the run. Raises ProtocolError for another
        than the run's newest."""
        given, kept = request.model, self.store.load(request.bound.run, state)
        if given is None:
            raise ProtocolError("truncated", "a sum for the clients, without the model that they began with")
        version = about_of(given).version if is_sealed(given) else 0
        if version != (newest := kept.version if kept is not None else 0):
            raise ProtocolError("replayed", f"version {version} of the model, the newest one is {newest}")
        model = open_sealed_model(given, kept.key) if kept is not None else given
        if trained_sha256(model) != request.bound.model:
            raise ProtocolError("wrong cohort", "the tags are of another model than the run's")
        return model, kept

    def step(
        self, request: SumRequest, before: tuple[State, KeptModel | None], total: NDArray[np.int64], state: RecordDict
    ) -> RecordDict:
        """The next model, sealed, and the sums of metrics. Raises ProtocolError where a step rejects the sum."""
        (model, kept), bound = before, request.bound
        entries = self.reading.entries
        update, metrics = total[: len(total) - entries], total[len(total) - entries :]
        after = self._after(model, update, request)
        key = kept.key if kept is not None else secrets.token_bytes(KEY_BYTES)
        version = kept.version + 1 if kept is not None else 1
        sealed = sealed_model(
            after,
            key,
            run=bound.run,
            config=self.config_sha256,
            version=version,
            server_round=bound.server_round,
            previous=bound.model,
            identity=self.identity,
            peers=self.peers,
        )
        self.store.save(bound.run, KeptModel(key, version, state_sha256(after), sealed), state)
        return pack_sum_reply({**sealed, METRICS: torch.from_numpy(metrics.copy())}, state_sha256(after))

    def _after(self, model: State, update: NDArray[np.int64], request: SumRequest) -> dict[str, Tensor]:
        """Server learning rate 1: the model plus the mean update, as the server's own step would have it."""
        template = {key: value for key, value in model.items() if value.is_floating_point()}
        size = sum(value.numel() for value in template.values())
        if size != len(update):
            raise ProtocolError("truncated", f"a sum of {len(update)} values for a model of {size}")
        clients = tuple(tag.client for tag in request.tags)
        mean = unflatten(self.reading.mean(update, sum_of_weights(request)), template)
        plan, rounding = self.steps.plan(request.bound.server_round), self.reading.rounding(size, len(clients))
        try:
            mean = dict(self.steps.on_total(mean, 1.0, clients, plan, rounding))
        except UpdateRejected as error:
            raise ProtocolError("rejected", str(error)) from None
        return {key: model[key] + mean[key].to(value.dtype) if key in mean else value for key, value in model.items()}


def sum_of_weights(request: SumRequest) -> float:
    """Exactly rounded, as the server has it."""
    return math.fsum(tag.weight for tag in request.tags)
