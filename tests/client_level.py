"""Rounds of client-level DP without federation: clients' replies are values, whatever a hostile one would send."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from torch import Tensor

from fedapp.aggregation.plain.server import PlainServer
from fedapp.aggregation.protocol import Aggregate, Cohort
from fedapp.aggregation.weighted_mean import WeightedMean
from fedapp.privacy.client_level.central_step import CentralNoise, CentralStep, NormQuantile
from fedapp.privacy.client_level.metric_sums import MetricSums
from fedapp.privacy.sampling import Sampling
from fedapp.updates.steps import UpdateSteps, flatten
from fedapp.wire.instruction import Instruction, unpack_instruction
from fedapp.wire.model import GlobalModel
from fedapp.wire.reply import ClientReport, Reply, pack_reply

__all__ = ["MODEL", "SAMPLING", "TRAINED", "asked", "central_step", "given", "replied", "round_of"]

MODEL = GlobalModel({"w": torch.zeros(3, 2), "scale": torch.ones(2), "b": torch.zeros(4), "count": torch.tensor(3)})
TRAINED = torch.tensor([True] * 6 + [False] * 2 + [True] * 4)  # `scale` is a buffer that nobody trains
SAMPLING = Sampling(rate=0.5, unit=2.0**-7, expected=32.0, largest=64)


def central_step(
    norm: float = 1.0,
    multiplier: float = 1.0,
    quantile: NormQuantile | None = None,
    metrics: MetricSums | None = None,
) -> CentralStep:
    noise = CentralNoise(multiplier, SAMPLING.unit, SAMPLING.expected, quantile, metrics=metrics)
    return CentralStep(noise, norm, TRAINED)


def asked(clients: Sequence[int], steps: UpdateSteps, hosts: Mapping[int, int] | None = None) -> Cohort:
    weights = tuple(SAMPLING.unit for _ in clients)
    instruction = Instruction(1, tuple(clients), weights, plan=steps.plan(1))
    return Cohort(instruction, hosts or {client: 100 + client for client in clients}, len(clients), 0, 60.0)


def given(vector: Tensor, steps: UpdateSteps) -> dict[str, Tensor]:
    """A vector of the model's length, and the steps' scalars, as a client would send it."""
    found, start = {}, 0
    for name, value in steps.template(MODEL.template).items():
        found[name] = vector[start : start + value.numel()].reshape(value.shape)
        start += value.numel()
    return found


def replied(
    cohort: Cohort, steps: UpdateSteps, replies: Mapping[int, RecordDict | Mapping[str, Tensor] | None]
) -> Aggregate:
    """What the plain protocol makes of these replies, by client: an update, any other content, or none."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1

    def ask(messages: Iterable[Message], _: float | None) -> Iterator[Message]:
        for message in messages:
            (client,) = unpack_instruction(message.content)[0].clients
            reply = replies[client]
            if reply is not None:
                content = reply if isinstance(reply, RecordDict) else _honest(client, reply)
                yield Message(content, reply_to=message)

    return PlainServer(WeightedMean, steps).run(cohort, MODEL, ask)


def _honest(client: int, update: Mapping[str, Tensor]) -> RecordDict:
    return pack_reply(Reply((ClientReport(client),), {client: update}))


def round_of(steps: UpdateSteps, replies: Mapping[int, RecordDict | Mapping[str, Tensor] | None]) -> Tensor:
    """The sum before noise, in units of one client's update: the model's values and the scalars."""
    aggregate = replied(asked(sorted(replies), steps), steps, replies)
    assert aggregate.total is not None
    return flatten(aggregate.total, aggregate.total) / SAMPLING.unit
