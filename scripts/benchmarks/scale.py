"""Many virtual clients and large cohorts: seconds a round, time per trained client, peak memory, bytes on the wire."""

import statistics
from argparse import Namespace
from typing import Any

from benchmarks.arms import lines_of, run_fedapp, workplace
from benchmarks.memory import MemoryWatch
from benchmarks.result import Point, Result, Table, median_and_range
from benchmarks.work import Work
from fedapp.common.errors import ConfigError

__all__ = ["run"]

EXAMPLES = 20  # of each client: 2 steps. 10,000 clients' examples are 627 MB
MEBI = 1 << 20


def run(options: Namespace) -> Result:
    """The 2NN with every number of clients and every cohort that fits in it. Ratios are to the first line."""
    sizes = [(clients, cohort) for clients in options.clients for cohort in options.cohort if cohort <= clients]
    if not sizes or options.rounds < 2:
        raise ConfigError(f"--clients {options.clients} --cohort {options.cohort} --rounds {options.rounds}: no round")
    columns = ("clients", "cohort", "a round, s", "ms a client", "server, MiB", "workers, MiB", "MB a round")
    table = Table(*columns, title=f"2NN, {EXAMPLES} examples a client; peak memory is unshared; medians (ranges)")
    rows: list[dict[str, Any]] = []
    with workplace() as home:
        for number in range(options.repetitions):
            for clients, cohort in sizes:
                place = home / f"{clients}-{cohort}-{number}"
                place.mkdir()
                work = Work("2nn", cohort, options.rounds, 1, clients, EXAMPLES)
                with MemoryWatch() as memory:
                    trace = run_fedapp(work, place, home, memory)
                last = lines_of(place / "run" / "metrics.jsonl")[-1]
                rows.append(
                    {
                        "clients": clients,
                        "cohort": cohort,
                        "rounds": trace.rounds(1),
                        "steps": trace.steps,
                        "peak_bytes": memory.peak,
                        "bytes": last["bytes_up"] + last["bytes_down"],
                    }
                )
    points = []
    for clients, cohort in sizes:
        found = [row for row in rows if (row["clients"], row["cohort"]) == (clients, cohort)]
        seconds = [value for row in found for value in row["rounds"]]
        peaks = [f"{max(row['peak_bytes'][role] for row in found) / MEBI:.0f}" for role in ("server", "workers")]
        each = f"{1e3 * statistics.median(seconds) / cohort:.2f}"
        wire = f"{found[0]['bytes'] / 1e6:.1f}"
        table.add_row(f"{clients:,}", f"{cohort:,}", median_and_range(seconds), each, *peaks, wire)
        points.append(Point(f"cohort {cohort}", f"{clients:,} clients", tuple(value / cohort for value in seconds)))
    return Result(rows, table, points, "seconds a round and trained client")
