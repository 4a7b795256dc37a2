"""Four SuperNodes as hosts of their own behind slow uplinks: buffered rounds where one has a tenth of the bandwidth of
the others, and rounds with 8 bits a value where all are slow.

What leaves a site is limited, what comes to it is not, as with most lines to homes and branches. TLS, gateway and
registered keys are as ever. Needs root (`networks.py`).
"""

import time
import uuid
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

from benchmarks.arms import SCRIPTS, ArmError, command, environment, lines_of, workplace
from benchmarks.networks import ADDRESS, Network, why_not
from benchmarks.result import Point, Result, Table, median_and_range
from fedapp.common.errors import ConfigError

__all__ = ["run"]

DEPLOY, PATIENCE = SCRIPTS / "deploy", 300.0  # seconds for a program to start, or to end
SITES = ("site-A", "site-B", "site-C", "site-D")
FAST, SLOW = 10_000, 1_000  # kbit/s of an uplink
WORK = (  # a CNN of 1,663,370 parameters: an update has 6.7 MB, and takes 53 s at 1 Mbit/s
    "experiment=bench_cnn federation.num_clients=4 federation.fraction_train=1 federation.min_supernodes=4"
    " data.num_examples=400 federation.round_timeout=600"
)


@dataclass(frozen=True)
class Arm:
    """`kilobits`: of each site's uplink. A run ends with the first round that is over after `seconds`, and has no more
    than `rounds` where that is not None."""

    case: str
    name: str
    overrides: str
    kilobits: Sequence[int]
    rounds: int | None = None


ONE_SLOW, ALL_SLOW = (FAST, FAST, FAST, SLOW), (SLOW,) * 4
MIXED, ALIKE = "one site of four at 1 Mbit/s, the others at 10", "all sites at 1 Mbit/s"


def arms(rounds: int) -> list[Arm]:
    buffered = "rounds=buffered rounds.concurrency=4 rounds.buffer_size=2"
    return [
        Arm(MIXED, "synchronous", "rounds=synchronous", ONE_SLOW),
        Arm(MIXED, "buffered", buffered, ONE_SLOW),
        Arm(ALIKE, "none", "compression=none", ALL_SLOW, rounds),
        Arm(ALIKE, "quantise, 8 bits", "compression=quantise compression.bits=8", ALL_SLOW, rounds),
    ]


def run(options: Namespace) -> Result:
    """All arms in turn, `options.repetitions` times. The first round of a run, which starts workers, is not timed."""
    if reason := why_not():
        raise ConfigError(f"slow-links: {reason}")
    table = Table(
        *("links", "arm", "a round, s", "updates used a minute", "sent by a site in a round, MB"),
        title="four SuperNodes behind slow uplinks, a CNN of 1,663,370 parameters; medians (ranges) of rounds",
    )
    rows: list[dict[str, Any]] = []
    with workplace() as home, spread_out(home) as network:
        for repetition in range(options.repetitions):
            for number, arm in enumerate(arms(options.rounds)):
                for host, kilobits in zip(network.hosts, arm.kilobits, strict=True):
                    host.limit(kilobits)
                place = home / f"{number}-{repetition}"
                rows.append({"case": arm.case, "arm": arm.name, **measure(arm, place, home, network, options.seconds)})
                print(rows[-1], flush=True)
    points = []
    for arm in arms(options.rounds):
        mine = [row for row in rows if (row["case"], row["arm"]) == (arm.case, arm.name)]
        seconds = [value for row in mine for value in row["rounds"]]
        table.add_row(
            arm.case,
            arm.name,
            median_and_range(seconds, 1),
            median_and_range([row["updates_a_minute"] for row in mine], 1),
            median_and_range([row["megabytes"] for row in mine], 2),
        )
        points.append(Point(arm.case, arm.name, tuple(seconds)))
    return Result(rows, table, points, "seconds a round")


def measure(arm: Arm, place: Path, home: Path, network: Network, seconds: float) -> dict[str, Any]:
    """Of one run: seconds of its rounds, updates that were used a minute, and what a site sends for a round, all of it
    counted at its link. Raises ArmError."""
    place.mkdir()
    limit = f"federation.max_seconds={seconds:g}" if arm.rounds is None else ""
    overrides = f"{WORK} {arm.overrides} {limit} federation.num_rounds={arm.rounds or 1000}".split()
    given = [*network.at_server, str(DEPLOY / "run"), "--folder", str(home / "federation" / "operator")]
    before = sum(host.sent() for host in network.hosts)
    command([*given, *overrides, f"run.output_dir={place}/run"], home, place / "log")
    sent = sum(host.sent() for host in network.hosts) - before
    lines = lines_of(place / "run" / "metrics.jsonl")[1:]
    if len(lines) < 2:
        raise ArmError(f"{arm.case}, {arm.name}: {len(lines)} rounds in {seconds:g} s; raise --seconds")
    timed = lines[1:]
    minutes = (timed[-1]["time"] - lines[0]["time"]) / 60
    return {
        "rounds": [line["time"] - before["time"] for before, line in zip(lines, timed, strict=False)],
        "updates_a_minute": sum(line["replied"] - line["unused"] for line in timed) / minutes,
        "megabytes": sent / 1e6 / sum(line["replied"] for line in lines),
    }


@contextmanager
def spread_out(home: Path) -> Iterator[Network]:
    """A federation in `home`, whose SuperLink is on the server of a network of its own, and whose sites are hosts."""
    folder = home / "federation"
    provision = [str(DEPLOY / "provision"), str(folder), "--host", ADDRESS, "--site", *SITES]
    command([*provision, "--port", "8443", "--control-port", "8444"], home, home / "provision.log")
    with Network() as network, ExitStack() as ends:
        given = [str(DEPLOY / "superlink"), "--folder", str(folder / "superlink"), "--host", "0.0.0.0"]
        ends.enter_context(_running([*network.at_server, *given], home, "SuperLink ready"))
        for number, site in enumerate(SITES):
            given = [str(DEPLOY / "supernode"), "--folder", str(folder / site), "--node-config"]
            given += [f"partition-id={number}", f"num-partitions={len(SITES)}"]
            ends.enter_context(_running([*network.add(site).inside, *given], home, "SuperNode ID"))
        yield network


@contextmanager
def _running(arguments: Sequence[str], home: Path, ready: str) -> Iterator[None]:
    """A program that has printed `ready`, until the end. Raises ArmError."""
    path = home / f"{uuid.uuid4().hex[:8]}.log"
    with path.open("wb") as log:
        process = Popen(arguments, env=environment(home), stdin=DEVNULL, stdout=log, stderr=log, cwd=home)
    try:
        end = time.monotonic() + PATIENCE
        while ready not in (said := path.read_text(errors="replace")):
            if process.poll() is not None or time.monotonic() > end:
                raise ArmError(f"{' '.join(arguments[-8:])} did not start:\n{said[-2000:]}")
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)
