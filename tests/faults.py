"""What can be wrong with a client, for any ClientApp: this app's own, and a stock one."""

import os
import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord
from flwr.clientapp import ClientApp

__all__ = ["ON_THE_WAY", "SPOILERS", "faulty"]

Spoiler = Callable[[Message], Message]


def _change(reply: Message, change: Callable[[np.ndarray], np.ndarray]) -> Message:
    """`reply` with the largest array of its update changed."""
    record = next(iter(reply.content.array_records.values()))
    key = _largest(record)
    record[key] = Array(change(record[key].numpy().copy()))
    return reply


def _largest(record: ArrayRecord) -> str:
    return max(record, key=lambda key: record[key].numpy().size)


def _first(value: float, array: np.ndarray) -> np.ndarray:
    array.flat[0] = value
    return array


def _fail(reply: Message) -> Message:
    raise RuntimeError("out of memory")


def _drop_key(reply: Message) -> Message:
    name, record = next(iter(reply.content.array_records.items()))
    largest = _largest(record)
    reply.content[name] = ArrayRecord({key: array for key, array in record.items() if key != largest})
    return reply


def _claim(reply: Message) -> Message:
    name, record = next(iter(reply.content.metric_records.items()))
    many = [10.0**12] if isinstance(record["num-examples"], list) else 10**12
    reply.content[name] = MetricRecord({**record, "num-examples": many})
    return reply


def _scale(reply: Message, factor: float) -> Message:
    for name, record in reply.content.array_records.items():
        arrays = {key: array.numpy() for key, array in record.items()}
        reply.content[name] = ArrayRecord({k: Array(np.asarray(v * factor, dtype=v.dtype)) for k, v in arrays.items()})
    return reply


def _sleep(reply: Message, seconds: float) -> Message:
    time.sleep(seconds)
    return reply


def _die(reply: Message) -> Message:
    os._exit(9)


SPOILERS: Mapping[str, Spoiler] = {
    "exception": _fail,
    "NaN": partial(_change, change=partial(_first, float("nan"))),
    "infinity": partial(_change, change=partial(_first, float("inf"))),
    "wrong shape": partial(_change, change=lambda array: array[None]),
    "wrong dtype": partial(_change, change=lambda array: array.astype(np.float64)),
    "missing key": _drop_key,
    "huge norm": partial(_scale, factor=1e6),
    "claims 10^12 examples": _claim,
    "sleeps": partial(_sleep, seconds=40.0),
    "is killed": _die,
}
# Faults of the network and of the process, which a grid without processes plays itself.
ON_THE_WAY = ("replies twice", "replies too late", "vanishes")


def faulty(app: ClientApp, fault_of: Callable[[Context], str | None]) -> ClientApp:
    """`app`, whose replies to train messages have the fault that `fault_of` names."""
    spoilt = ClientApp()

    @spoilt.query()
    def query(message: Message, context: Context) -> Message:
        return app(message, context)

    @spoilt.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return app(message, context)

    @spoilt.train()
    def train(message: Message, context: Context) -> Message:
        reply, fault = app(message, context), fault_of(context)
        return SPOILERS[fault](reply) if fault in SPOILERS else reply

    return spoilt
