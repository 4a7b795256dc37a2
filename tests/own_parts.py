"""One of each thing that people add, in a module outside of fedapp: nothing of fedapp is edited for any of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from flwr.app import RecordDict
from torch import Tensor, nn

from fedapp.aggregation.exact_sum import examine
from fedapp.aggregation.protocol import (
    Aggregate,
    AggregationProtocol,
    Ask,
    Cohort,
    Handler,
    Train,
    train_messages,
)
from fedapp.aggregation.reply_log import ReplyLog
from fedapp.data.held_out import hold_out
from fedapp.data.source import DataSource, Examples, Pooled, Schema
from fedapp.learning.losses import Loss
from fedapp.learning.metrics import Metric
from fedapp.updates.step import StepState, UpdateStep
from fedapp.wire.instruction import Params, unpack_instruction
from fedapp.wire.model import GlobalModel
from fedapp.wire.reply import Reply, pack_reply

# --- a data set ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TwoBlobs(DataSource):
    """Two clouds of points; with `numbers` the target is a point's distance from the origin."""

    num_examples: int = 300
    numbers: bool = False

    def schema(self) -> Schema:
        return Schema((2,), () if self.numbers else ("left", "right"), features=("x", "y"))

    def pooled(self) -> Pooled:
        random = torch.Generator().manual_seed(0)
        labels = torch.arange(self.num_examples) % 2
        points = torch.randn(self.num_examples, 2, generator=random) + 3.0 * (2 * labels - 1)[:, None]
        examples = Examples(points, points.norm(dim=1) if self.numbers else labels)
        return hold_out(examples, fraction=0.2, seed=0, name="two_blobs")


# --- a model ------------------------------------------------------------------------------------------------------


def bottleneck(schema: Schema, *, width: int) -> nn.Module:
    """(B, *input_shape) to (B, num_outputs) through a few tanh units."""
    inputs = schema.input_shape[0]
    return nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, schema.num_outputs))


# --- a loss with its metric ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogCosh(Loss):
    serves: ClassVar[str] = "regression"
    scale: float = 1.0

    def per_example(self, outputs: Tensor, targets: Tensor) -> Tensor:
        error = (outputs.squeeze(1) - targets) / self.scale
        return error + nn.functional.softplus(-2 * error) - 0.6931471805599453


class LargestError(Metric):
    serves: ClassVar[str] = "regression"
    lower_is_better: ClassVar[bool] = True
    highest: ClassVar[float] = float("inf")

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        return float((outputs.squeeze(1) - targets).abs().max())


# --- an update step -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RoundToBf16(UpdateStep):
    """Sends bfloat16, half the bytes of float32. The sum of what was rounded is what the server adds up, so outputs
    travel one by one."""

    summable = False

    def on_client(self, vector: Tensor, weight: float, params: Params, state: StepState) -> Tensor:
        return vector.to(torch.bfloat16).view(torch.int16)

    def on_reply(self, vector: Tensor, weight: float, params: Params) -> Tensor:
        return vector.view(torch.bfloat16).float()


@dataclass(frozen=True)
class Halving(UpdateStep):
    """Halves every update, by a plan that the server makes, and counts its own work on each client."""

    keeps_state = True

    def plan(self, server_round: int) -> Params:
        return {"factor": 0.5}

    def on_client(self, vector: Tensor, weight: float, params: Params, state: StepState) -> Tensor:
        state["times"] = state.get("times", torch.zeros(1)) + 1
        return vector * float(params["factor"])


# --- an aggregation protocol --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PlainFloat64(AggregationProtocol):
    """Each client sends its update; the server adds them up in float64, in the order in which they come."""

    individual_updates = True
    exact = False
    keeps_state = False

    def server(self, config: Any, parts: Any, steps: Any) -> "Float64Server":
        return Float64Server()

    def client(self, config: Any, parts: Any, limits: Any) -> "Float64Client":
        return Float64Client()


class Float64Client:
    @property
    def stages(self) -> Mapping[str, Handler]:
        return {"float64": self.answer}

    def answer(self, content: RecordDict, state: RecordDict, train: Train) -> RecordDict:
        instruction, model = unpack_instruction(content)
        found = {client: train(client, instruction, model) for client in instruction.clients}
        reports = tuple(report for report, _ in found.values())
        return pack_reply(Reply(reports, {client: update for client, (_, update) in found.items() if update}))


class Float64Server:
    def describe(self, cohort_size: int) -> None:
        pass

    def run(self, cohort: Cohort, model: GlobalModel, ask: Ask) -> Aggregate:
        cohort = replace(cohort, instruction=replace(cohort.instruction, each=True))
        replies = ReplyLog(cohort.instruction.server_round, cohort.hosts)
        total = {key: torch.zeros_like(value, dtype=torch.float64) for key, value in model.template.items()}
        weights, weight = cohort.weights, 0.0
        for message in ask(train_messages(cohort, model, "float64", replies), None):
            reply = replies.unpack(message)
            if reply is None:
                continue
            replies.add(reply.reports)
            for client, update in reply.updates.items():
                if fault := examine(update, model.template).fault:
                    replies.reject(client, fault)
                    continue
                for key, value in total.items():
                    value += weights[client] * update[key].double()
                weight += weights[client]
        replies.close(enough=False)
        survivors = tuple(report.client for report in replies.used)
        if len(survivors) < cohort.minimum:
            return Aggregate(None, 0.0, (), replies)
        return Aggregate(total, weight, survivors, replies)
