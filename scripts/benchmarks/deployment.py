"""A round on devices: two SuperNodes on this machine, against the stock app on the same two.

`fedapp` runs with TLS, authenticated SuperNodes and a gateway, as scripts/deploy/local does; the stock app with neither
(`--insecure`), as Flower's first example of a deployment has it. Both evaluate in every round.
"""

import statistics
import subprocess
import time
from argparse import Namespace
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.arms import ArmError, command, environment, fedapp_trace, stock_lines, workplace
from benchmarks.result import Point, Result, Table, median_and_range
from benchmarks.simulation import compare
from benchmarks.stock import flwr_run, stock_environment
from benchmarks.work import Trace, Work, read_trace
from fedapp.launch.local_superlink import free_port, wait_for_health, write_connection

__all__ = ["run"]

SUPERNODES = 2
WARMUP = 1
LOCAL = Path(__file__).resolve().parents[1] / "deploy" / "local"


def run(options: Namespace) -> Result:
    # 111 examples: 11 for validation, 100 to train on.
    work = Work("2nn", SUPERNODES, options.rounds, WARMUP, SUPERNODES, 111, ("train.val_fraction=0.1",))
    arms = {"stock": stock, "fedapp, cold": partial(fedapp, cold=True), "fedapp, warm": fedapp}
    with workplace() as home:
        traces = compare(work, arms, options.repetitions, home)
    table = Table(
        "arm", "a round, s", "to stock", "command to first round, s", title="2NN, two SuperNodes; medians (ranges)"
    )
    rows, points = [], []
    rounds = {arm: [seconds for trace in found for seconds in trace.rounds(WARMUP)] for arm, found in traces.items()}
    for arm, found in traces.items():
        ratio = statistics.median(rounds[arm]) / statistics.median(rounds["stock"])
        first = [trace.to_first_round for trace in found]
        rows.append({"arm": arm, "rounds": rounds[arm], "to_stock": ratio, "first": first})
        points.append(Point("2 SuperNodes", arm, tuple(rounds[arm])))
        table.add_row(arm, median_and_range(rounds[arm], 2), f"{ratio:.2f}", median_and_range(first, 1))
    return Result(rows, table, points, "seconds a round")


def fedapp(work: Work, place: Path, home: Path, *, cold: bool = False) -> Trace:
    arguments = [str(LOCAL), "--supernodes", str(SUPERNODES), *(["--cold"] if cold else []), *work.overrides]
    start = command([*arguments, f"run.output_dir={place / 'run'}"], home, place / "fedapp.log")
    return fedapp_trace(start, place / "run")


def stock(work: Work, place: Path, home: Path) -> Trace:
    """A SuperLink, two SuperNodes, one run."""
    start, port, own = time.time(), free_port(), place / "flwr"
    own.mkdir()
    settings = stock_environment(environment(own))
    write_connection(own, {"address": f"127.0.0.1:{port}", "insecure": True})
    superlink = ["flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port)]
    with ExitStack() as stack:
        log = stack.enter_context((place / "stock.log").open("wb"))
        start_process = partial(subprocess.Popen, env=settings, cwd=own, stdout=log, stderr=log)
        server = start_process([*superlink, "--database", str(own / "state.db")])
        stack.callback(_end, server)
        if not wait_for_health(server, f"http://127.0.0.1:{port}"):
            raise ArmError("flower-superlink did not start:\n" + (place / "stock.log").read_text()[-2000:])
        for number in range(SUPERNODES):
            node = ["flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}", "--port", str(free_port())]
            node += ["--node-config", f"partition-id={number} num-partitions={SUPERNODES}"]
            stack.callback(_end, start_process(node))
        done = flwr_run(place, settings, output=log, **{"fraction-evaluate": 1.0})
    if done:
        raise ArmError("the stock app failed:\n" + (place / "stock.log").read_text()[-2000:])
    return read_trace(start, stock_lines(place, work))


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
