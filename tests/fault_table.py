"""What one bad client out of five does to Flower's FedAvg, and to this app: `python tests/fault_table.py`.

Prints the table in docs/robustness.md. Flower's own strategy and a stock ClientApp run as Flower's quickstart writes
them, both arms on the same in-process grid with the same faults; what is said of the time that FedAvg waits is its
default.
"""

import json
import logging
import math
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from array_values import values_of
from faults import ON_THE_WAY, SPOILERS, faulty
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from in_process import InProcessGrid, run_on
from safetensors.torch import load_file

from fedapp.client_app import app
from fedapp.common.errors import FedappError

CLIENTS, BAD, ROUNDS = 5, 4, 2
FAULTS = [name for name in SPOILERS if name not in ("sleeps", "is killed")] + list(ON_THE_WAY)
OVERRIDES = (
    f"federation.num_clients={CLIENTS} federation.num_rounds={ROUNDS} federation.fraction_train=1 partition=iid"
    " model=logistic_regression federation.round_timeout=3 strategy.max_update_norm=20 federation.wait_timeout=1"
    " federation.final_evaluation=false"
)
stock = ClientApp()


@stock.train()
def train(message: Message, context: Context) -> Message:
    """Each client moves the model by an amount of its own; all have 100 examples."""
    number = int(context.node_config["partition-id"]) + 1
    arrays = {key: Array(values_of(array) + np.float32(number)) for key, array in message.content["arrays"].items()}
    metrics = MetricRecord({"num-examples": 100, "train_loss": 1.0})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)


class OneBad(InProcessGrid):
    """`CLIENTS` SuperNodes, the last of which has `fault`; it replies before all others, or after them."""

    def __init__(self, client_app: ClientApp, fault: str, overrides: str = "", *, first: bool = False) -> None:
        self.fault, self.first = fault, first
        bad = faulty(client_app, lambda context: fault if context.node_config["partition-id"] == BAD else None)
        super().__init__(overrides, CLIENTS, app=bad, tamper=self.twice, delay=self.late)

    def concerns(self, message: Message) -> bool:
        return message.metadata.message_type == "train" and message.metadata.src_node_id == 100 + BAD

    def twice(self, reply: Message) -> Message | list[Message]:
        return [reply, reply] if self.fault == "replies twice" and self.concerns(reply) else reply

    def late(self, reply: Message) -> float:
        return math.inf if self.fault == "replies too late" and self.concerns(reply) else 0.0

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies in an order that chance has no part in: what Flower's sum becomes depends on whose comes first."""
        replies = list(super().pull_messages(message_ids))
        return sorted(replies, key=lambda reply: reply.metadata.src_node_id, reverse=self.first)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        if self.fault == "vanishes" and messages and messages[0].metadata.message_type == "train":
            self.contexts.pop(100 + BAD, None)
        return super().push_messages(messages)


def stock_model(fault: str, first: bool) -> dict[str, np.ndarray]:
    """The model of Flower's FedAvg after `ROUNDS` rounds. Raises whatever it raises."""
    initial = ArrayRecord({"weight": Array(np.zeros((10, 10), np.float32)), "bias": Array(np.zeros(10, np.float32))})
    strategy = FedAvg(fraction_evaluate=0.0)
    result = strategy.start(OneBad(stock, fault, first=first), initial, num_rounds=ROUNDS, timeout=0.5)
    return {key: values_of(array) for key, array in result.arrays.items()}


def of_flower(fault: str) -> str:
    """What became of the runs with Flower's FedAvg in which the bad client replies last, and first."""
    last, first = outcome(fault, first=False), outcome(fault, first=True)
    return last if first == last else f"{last}; where it replies first, {first}"


def outcome(fault: str, *, first: bool) -> str:
    """What became of one run, in words, from its model."""
    try:
        model = stock_model(fault, first)
    except Exception as error:
        return f"the run ends: {type(error).__name__}"
    waits = (
        "waits out its timeout (3600 s by default) in every round, then goes " if fault == "replies too late" else ""
    )
    steps = [number + 1 for number in range(CLIENTS)]  # of each client, in a round
    good, everyone = ROUNDS * np.mean(steps[:BAD]), ROUNDS * np.mean(steps)
    weight = model.get("weight")
    if weight is None:
        return "the model has lost an entry"
    if not np.isfinite(weight).all():
        return "the model is not finite any more"
    if weight.shape != (10, 10):
        return f"the model's shape becomes {weight.shape}"
    if weight.dtype != np.float32:
        return f"the model becomes {weight.dtype}"
    if np.allclose(weight, good):
        return f"{waits or 'goes '}on without it"
    if np.allclose(weight, everyone):
        return "its update counts, as it should"
    if np.allclose(weight, ROUNDS * steps[BAD]):
        return "it alone counts: the model is what it sends"
    if np.allclose(weight, ROUNDS * np.mean([*steps, steps[BAD]])):
        return "its update counts twice"
    return f"its update counts, and the model is {weight.flat[0] / everyone:.1g} times as far as it should be"


def fedapp_model(fault: str, directory: Path) -> tuple[dict[str, np.ndarray], str]:
    """The model of this app, and what its clients.jsonl says of the bad client and of replies to nobody."""
    run_on(OneBad(app, fault, OVERRIDES), directory, OVERRIDES)
    lines = (directory / "clients.jsonl").read_text().splitlines()
    reasons = [row["rejected"] for row in map(json.loads, lines) if row["rejected"]]
    return {key: value.numpy() for key, value in load_file(directory / "model.safetensors").items()}, (
        reasons[0] if reasons else ""
    )


def of_fedapp(fault: str, without: dict[str, np.ndarray], everyone: dict[str, np.ndarray], directory: Path) -> str:
    """The same for this app, compared bit for bit with runs without the bad client's updates, and with good ones."""
    try:
        model, reason = fedapp_model(fault, directory)
    except FedappError as error:
        return f"the run ends: {error}"
    if all(np.array_equal(model[key], everyone[key]) for key in everyone):
        return "its update counts, as it should" + (f"; reported: {reason}" if reason else "")
    if all(np.array_equal(model[key], without[key]) for key in without):
        return f"goes on without it, reported: {reason}"
    return "the model is another one"


def table() -> str:
    """The table as Markdown."""
    rows = ["| one bad client of five | Flower's `FedAvg` | fedapp |", "|---|---|---|"]
    with tempfile.TemporaryDirectory() as place:
        without, _ = fedapp_model("exception", Path(place) / "without")
        everyone, _ = fedapp_model("none", Path(place) / "everyone")
        for fault in FAULTS:
            ours = of_fedapp(fault, without, everyone, Path(place) / fault)
            rows.append(f"| {fault} | {of_flower(fault)} | {ours} |")
    return "\n".join(rows)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    print(table())
