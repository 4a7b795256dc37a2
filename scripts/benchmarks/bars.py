"""The ratios that this app wants to reach, out of the rows of all benchmarks."""

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.result import Table

__all__ = ["bars"]

Rows = list[dict[str, Any]]


def bars(found: Mapping[str, Rows]) -> Table:
    """A line for each ratio that can be told from `found`, the rows by benchmark."""
    table = Table("ratio", "to reach", "measured", title="in ratios of one run")
    lines = [*_simulation(found.get("simulation", [])), *_command(found.get("command", []))]
    lines += _scale(found.get("scale", []))
    lines += [*_aggregation(found.get("aggregation", [])), *_deployment(found.get("deployment", []))]
    lines += [*_buffered(found.get("buffered", [])), *_slow_links(found.get("slow-links", []))]
    lines += _language(found.get("language", []))
    for name, bar, value in lines:
        table.add_row(name, bar, f"{value:.2f}")
    return table


def _simulation(rows: Rows) -> list[tuple[str, str, float]]:
    median = {(row["model"], row["cohort"], row["arm"]): statistics.median(row["rounds"]) for row in rows}
    first = {(row["model"], row["cohort"], row["arm"]): statistics.median(row["first"]) for row in rows}
    cases = {
        ("cnn", 10): ("1.12", "1.5", "1.05"),
        ("2nn", 100): ("1.15", "3.6", "1.8"),
        ("2nn", 10): ("1.4", "4.5", "1.4"),
    }
    lines = []
    for (model, cohort), (to_ideal, stock, pfl) in cases.items():
        case, key = f"{model.upper()}, cohort {cohort}", (model, cohort)
        if (*key, "fedapp") not in median:
            continue
        ours = median[*key, "fedapp"]
        if (*key, "ideal") in median:
            lines.append((f"round, ours / plain loop: {case}", f"<= {to_ideal}", ours / median[*key, "ideal"]))
        if (*key, "stock") in median:
            lines.append((f"round, stock Flower / ours: {case}", f">= {stock}", median[*key, "stock"] / ours))
            ratio = first[*key, "stock"] / first[*key, "fedapp"]
            lines.append((f"command to first round, stock Flower / ours: {case}", ">= 1.0", ratio))
        if (*key, "pfl") in median:
            lines.append((f"round, pfl / ours: {case}", f">= {pfl}", median[*key, "pfl"] / ours))
            ratio = first[*key, "fedapp"] / first[*key, "pfl"]
            lines.append((f"command to first round, ours / pfl: {case}", "<= 1.5", ratio))
    return lines


def _command(rows: Rows) -> list[tuple[str, str, float]]:
    mine = [row for row in rows if row["engine"] == "local"]
    if not mine:
        return []
    ratio = statistics.median(row["command"] / row["rounds"] for row in mine)
    further = statistics.median(row["further"] for row in mine)
    return [
        ("the default run, command to last line / its rounds", "<= 2.0", ratio),
        ("each further run of a sweep, seconds beyond its rounds", "<= 0.5", further),
    ]


def _scale(rows: Rows) -> list[tuple[str, str, float]]:
    lines = []
    server = {(row["clients"], row["cohort"]): row["peak_bytes"]["server"] for row in rows}
    for clients in sorted({clients for clients, _ in server}):
        if {(clients, 10), (clients, 1000)} <= server.keys():
            name = f"server's peak memory, cohort 1,000 / cohort 10: {clients:,} clients"
            lines.append((name, "<= 1.1", server[clients, 1000] / server[clients, 10]))
    workers = {(row["clients"], row["cohort"]): row["peak_bytes"]["workers"] for row in rows}
    if {(100, 100), (10_000, 100)} <= workers.keys():
        ratio = workers[10_000, 100] / workers[100, 100]
        lines.append(("workers' unshared memory, 10,000 clients / 100 clients: cohort 100", "<= 1.3", ratio))
    each = {(row["clients"], row["cohort"]): statistics.median(row["rounds"]) / row["cohort"] for row in rows}
    if {(100, 100), (10_000, 100)} <= each.keys():
        name = "time per trained client, 10,000 clients / 100 clients: cohort 100"
        lines.append((name, "<= 1.2", each[10_000, 100] / each[100, 100]))
    return lines


def _aggregation(rows: Rows) -> list[tuple[str, str, float]]:
    rates: dict[tuple[int, str], list[float]] = {}
    for row in rows:
        rates.setdefault((row["cohort"], row["arm"]), []).append(row["gigabytes_a_second"])
    return [
        (
            f"aggregation, ours / Flower's: cohort {cohort}",
            ">= 0.8",
            statistics.median(rates[cohort, "fedapp"]) / statistics.median(flowers),
        )
        for (cohort, arm), flowers in rates.items()
        if arm == "flower"
    ]


def _buffered(rows: Rows) -> list[tuple[str, str, float]]:
    """Seed by seed, with a buffer of as many updates as a synchronous round needs."""
    time = {(row["arm"], row["seed"]): row["virtual_seconds"] for row in rows}
    ours, theirs = "buffered, a step for every 10", "synchronous, 30 % over-selection"
    seeds = sorted(seed for arm, seed in time if arm == ours)
    ratios = [time[theirs, seed] / time[ours, seed] for seed in seeds]
    name = "virtual time to 0.95 on digits, synchronous with 30 % over-selection / buffered"
    return [(name, ">= 1.5", statistics.mean(ratios))] if ratios else []


def _slow_links(rows: Rows) -> list[tuple[str, str, float]]:
    rates: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for row in rows:
        rates.setdefault(row["arm"], []).append(row["updates_a_minute"])
        seconds.setdefault(row["arm"], []).extend(row["rounds"])
    lines = []
    if {"buffered", "synchronous"} <= rates.keys():
        ratio = statistics.median(rates["buffered"]) / statistics.median(rates["synchronous"])
        lines.append(("updates used a minute, one site at a tenth, buffered / synchronous", ">= 2.0", ratio))
    if {"none", "quantise, 8 bits"} <= seconds.keys():
        ratio = statistics.median(seconds["quantise, 8 bits"]) / statistics.median(seconds["none"])
        lines.append(("a round at 1 Mbit/s, 8 bits / without compression", "<= 0.35", ratio))
    return lines


def _language(rows: Rows) -> list[tuple[str, str, float]]:
    """CPU seconds."""
    wanted = {"fedapp": "<= 1.25", "DP-SGD": "<= 4.0"}
    return [
        (
            f"{row['what']}, {row['arm']} / {'plain loop' if row['arm'] == 'fedapp' else 'DPLSTM without DP'}",
            bar,
            row["to_plain"],
        )
        for row in rows
        if (bar := wanted.get(row["arm"].partition(",")[0])) is not None
    ]


def _deployment(rows: Rows) -> list[tuple[str, str, float]]:
    wanted = {"fedapp, cold": "<= 0.5", "fedapp, warm": "<= 0.2"}
    return [
        (f"round on devices, {row['arm']} / stock Flower", wanted[row["arm"]], row["to_stock"])
        for row in rows
        if row["arm"] in wanted
    ]
