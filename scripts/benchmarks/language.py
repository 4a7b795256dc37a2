"""The keyboard: a round of experiment=keyboard against a plain loop in as many processes on the same text, and DP-SGD
on its LSTM against the same DPLSTM without DP. In CPU seconds, of all processes of an arm."""

import json
import statistics
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from benchmarks.arms import SCRIPTS, command, lines_of, workplace
from benchmarks.result import Point, Result, Table, median_and_range
from benchmarks.timing import alternate
from fedapp.common.cores import allowed_cores
from fedapp.config import compose
from fedapp.data.source import Examples
from fedapp.learning.build import build_parts, build_training
from fedapp.learning.build_shards import build_shards
from fedapp.privacy.dp_sgd import DpSgd
from fedapp.privacy.limits import OwnLimits
from fedapp.privacy.opacus_internals import private_layers
from fedapp.privacy.option import privacy_of

__all__ = ["run"]

# Nothing is judged between the first round and the last, neither here nor there.
BARE = (
    *("federation.evaluate_every=1000", "federation.final_evaluation=false", "train.val_fraction=0.0"),
    "run.checkpoint_every=1000",
)
Watch = Callable[[int], None]
DP_LAYERS = "DPLSTM without DP"


def run(options: Namespace) -> Result:
    """`repetitions` of every arm, in turn; `rounds` are timed of each, beyond one that is not."""
    table = Table("what", "arm", "CPU seconds", "to the plain one", title="medians (ranges)")
    rows = [*_rounds(options.repetitions, options.rounds), *_private(options.repetitions)]
    for row in rows:
        table.add_row(row["what"], row["arm"], median_and_range(row["cpu"]), f"{row['to_plain']:.2f}")
    points = [Point(row["what"], row["arm"], tuple(row["cpu"])) for row in rows]
    return Result(rows, table, points, "CPU seconds")


def _rows(what: str, plain: str, cpu: dict[str, list[float]], **more: Any) -> list[dict[str, Any]]:
    """Ratios are medians of those of arms that ran one after the other."""
    return [
        {
            "what": what,
            "arm": arm,
            "cpu": seconds,
            "to_plain": statistics.median(a / b for a, b in zip(seconds, cpu[plain], strict=True)),
            **more,
        }
        for arm, seconds in cpu.items()
    ]


# --- a round --------------------------------------------------------------------------------------------------------


def _rounds(repetitions: int, rounds: int) -> list[dict[str, Any]]:
    """What `rounds` more rounds cost than one, over their number: what comes before and after them does not count."""
    arms: dict[str, Callable[[int, Path, Watch], int]] = {"plain loop": _plain_loop, "fedapp": _fedapp}
    cpu: dict[str, list[float]] = {arm: [] for arm in arms}
    steps: dict[str, int] = {}
    with workplace() as home:
        for repetition in range(repetitions):
            for arm, work in arms.items():
                spent = []
                for count in (1, 1 + rounds):
                    place = home / f"{arm.replace(' ', '-')}-{repetition}-{count}"
                    place.mkdir()
                    used = _Cpu()
                    steps[arm] = work(count, place, used.watch)
                    spent.append(used.seconds)
                cpu[arm].append((spent[1] - spent[0]) / rounds)
    assert steps["plain loop"] == steps["fedapp"], f"the arms did not do the same: {steps}"
    return _rows("a round of experiment=keyboard", "plain loop", cpu, steps=steps["fedapp"])


class _Cpu:
    """CPU seconds of a command and all that comes of it, looked at ten times a second: workers that are not waited for
    are in nobody's account afterwards."""

    def __init__(self) -> None:
        self._seen: dict[psutil.Process, float] = {}

    def watch(self, pid: int) -> None:
        threading.Thread(target=self._look, args=(psutil.Process(pid),), daemon=True).start()

    def _look(self, root: psutil.Process) -> None:
        with suppress(psutil.Error):
            while root.is_running() and root.status() != psutil.STATUS_ZOMBIE:
                for process in (root, *root.children(recursive=True)):
                    with suppress(psutil.Error):
                        times = process.cpu_times()
                        self._seen[process] = times.user + times.system
                time.sleep(0.1)

    @property
    def seconds(self) -> float:
        return sum(self._seen.values())


def _overrides(rounds: int) -> list[str]:
    return ["experiment=keyboard", *BARE, f"federation.num_rounds={rounds}"]


def _fedapp(rounds: int, place: Path, watch: Watch) -> int:
    """Returns how many steps all clients have made."""
    arguments = [sys.executable, str(SCRIPTS / "run.py"), *_overrides(rounds), f"run.output_dir={place / 'run'}"]
    arguments.append(f"run.num_supernodes={allowed_cores()}")
    command(arguments, place, place / "fedapp.log", watch)
    return sum(row["steps"] for row in lines_of(place / "run" / "clients.jsonl") if row.get("steps"))


def _plain_loop(rounds: int, place: Path, watch: Watch) -> int:
    arguments = [
        sys.executable,
        "-m",
        "benchmarks.plain_keyboard",
        str(place),
        str(allowed_cores()),
        *_overrides(rounds),
    ]
    command(arguments, place, place / "plain.log", watch)
    return int(json.loads((place / "plain.json").read_text())["steps"])


# --- DP-SGD ---------------------------------------------------------------------------------------------------------


def _private(repetitions: int) -> list[dict[str, Any]]:
    """A client's round of experiment=keyboard_dp, and as many steps on batches of its mean size."""
    config = compose(["experiment=keyboard_dp"])
    parts, privacy = build_parts(config), privacy_of(config)
    assert isinstance(privacy, DpSgd)
    examples = build_shards(config, parts).of(0).train
    private = privacy.plan(config, parts, OwnLimits()).training
    batch = round(private.sample_rate * len(examples))
    plain = build_training(compose(["experiment=keyboard_dp", f"train.batch_size={batch}"]), parts)
    order = torch.arange(private.steps * batch) % len(examples)
    steps = Examples(examples.inputs[order], examples.targets[order])

    def without_dp(model: nn.Module) -> None:
        with private_layers(model):
            plain(model, steps, seed=(0,))

    arms = {
        DP_LAYERS: lambda: without_dp(parts.model),
        "LSTM without DP": lambda: plain(parts.model, steps, seed=(0,)),
        f"DP-SGD, {private.mode}": lambda: private(parts.model, examples, seed=(0,)),
    }
    timed = alternate(arms, repetitions, time.process_time)
    what = f"a client's round of experiment=keyboard_dp ({private.steps} steps on {batch} windows)"
    return _rows(what, DP_LAYERS, {arm: list(value.seconds) for arm, value in timed.items()}, batch=batch)
