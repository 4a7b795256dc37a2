"""A client's round of task=transfer: with features of the frozen part computed anew, from a file, and from memory."""

import tempfile
from argparse import Namespace
from pathlib import Path

from benchmarks.result import Point, Result, Table
from benchmarks.timing import alternate
from fedapp.config import compose
from fedapp.data.features import FeatureFiles, Features
from fedapp.data.shards import ClientData
from fedapp.learning.build import build_parts, build_training


def run(options: Namespace) -> Result:
    """One epoch of `options.steps` batches of 32 photographs, and the evaluation of a tenth as many."""
    repetitions, steps = options.repetitions, options.steps
    config = compose(["task=transfer"])
    parts = build_parts(config)
    assert parts.frozen is not None
    training, frozen = build_training(config, parts), parts.frozen
    photographs = parts.source.pooled().train
    count = min(32 * steps, len(photographs) - 3 * steps)
    data = ClientData(photographs.span(0, count), photographs.span(count, count + 3 * steps))
    start = {name: value.clone() for name, value in parts.model.state_dict().items()}
    losses: dict[str, float | None] = {}

    def round_with(name: str, features: Features) -> None:
        parts.model.load_state_dict(start)
        found = features(0, data)
        parts.task.evaluate(parts.model, found.validation)
        losses[name] = training(parts.model, found.train, seed=(0,)).loss

    with tempfile.TemporaryDirectory() as folder:
        files, memory = FeatureFiles(Path(folder), parts.backbone, 1 << 30), Features(frozen)
        timed = alternate(
            {
                "computed": lambda: round_with("computed", Features(frozen)),
                "from a file": lambda: round_with("from a file", Features(frozen, files)),
                "from memory": lambda: round_with("from memory", memory),
            },
            repetitions,
        )
    table = Table("features", "a round, ms", "times faster", title=f"{count} photographs, EfficientNet-Lite0")
    rows, points = [], []
    for name, seconds in timed.items():
        ratio = timed["computed"].median / seconds.median
        rows.append({"features": name, "times_faster": ratio, "loss": losses[name], "seconds": seconds.seconds})
        points.append(Point(f"{count} photographs", name, seconds.seconds))
        table.add_row(name, seconds.text, f"{ratio:.0f}")
    return Result(rows, table, points, "seconds")
