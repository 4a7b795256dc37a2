"""Whole rounds with and without client-level DP: the server's run and its SuperNodes in this process, by CPU time."""

import logging
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from flwr.app import Context, Message

from fedapp.client_app import app
from fedapp.config import compose
from fedapp.flower.hosted_grid import HostedGrid, simulated_nodes
from fedapp.server.run import run_federation
from fedapp.wire.instruction import unpack_instruction

__all__ = ["rounds_of"]

CLIENTS, COHORT, ROUNDS = 300, 100, 3  # the first round of a run is not timed
PLAIN = (
    f"experiment=bench_2nn federation.num_clients={CLIENTS} federation.fraction_train={COHORT / CLIENTS}"
    f" federation.num_rounds={ROUNDS} data.num_examples={CLIENTS * 100}"
)


class _OneProcess(HostedGrid):
    """`asked`: how many clients were asked to train so far."""

    def __init__(self, overrides: str) -> None:
        super().__init__()
        self._contexts = simulated_nodes(2, overrides)
        self.asked = 0

    @property
    def contexts(self) -> Mapping[int, Context]:
        return self._contexts

    def _deliver(self, number: str, message: Message) -> None:
        if message.metadata.message_type == "train":
            self.asked += len(unpack_instruction(message.content)[0].clients)
        self._replies[number] = [app(message, self._contexts[message.metadata.dst_node_id])]

    def wait(self, seconds: float) -> None:
        """Every reply is there at once."""


def rounds_of(arms: Mapping[str, str], repetitions: int) -> dict[str, list[float]]:
    """By arm, given its overrides, CPU seconds of a round with `COHORT` clients: of all rounds of a run but the first,
    by the number of clients that they asked, which under client-level DP is a random one. The arms take turns."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    found: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(repetitions):
        for name, more in arms.items():
            found[name].append(_run(f"{PLAIN} {more}".split()))
    return found


def _run(overrides: list[str]) -> float:
    grid = _OneProcess(" ".join(overrides))
    marks: list[tuple[float, int]] = []

    def note(_: Mapping[str, object]) -> None:
        marks.append((time.process_time(), grid.asked))

    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "run"
        own = [*overrides, f"run.output_dir={directory}"]
        run_federation(grid, compose(own), directory, time.perf_counter(), own, on_round=note, show=_nothing)
    (start, before), (end, after) = marks[1], marks[-1]
    return COHORT * (end - start) / max(1, after - before)


def _nothing(*_: object) -> None:
    """No report."""
