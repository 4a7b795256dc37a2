"""DP-SGD: what it takes relative to plain SGD in each of Opacus's modes, and which one `auto` picks; and relative to
Opacus's own clipping, which holds its bound only as far as float32 goes."""

from argparse import Namespace

import torch.nn.functional as F  # noqa: N812 (torch's own idiom)

from benchmarks.models import MODELS, examples, per_example_loss, sgd
from benchmarks.opacus_clipping import OpacusTraining
from benchmarks.result import Point, Result, Table
from benchmarks.timing import alternate
from fedapp.learning.training import LocalTraining
from fedapp.privacy.dp_training import PrivateTraining
from fedapp.privacy.noise import make_noise
from fedapp.privacy.trainable import choose_mode

MODES = ("hooks", "functorch", "ew", "ghost")
COMPARED = ("ew", "ghost")  # those that `auto` chooses from
BATCHES = (10, 64)


def private_training(mode: str, batch: int, steps: int) -> PrivateTraining:
    """The same samples and the same noise in every mode."""
    return PrivateTraining(
        loss=per_example_loss,
        optimizer=sgd,
        noise=lambda: make_noise("seeded_for_tests", 0),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        sample_rate=1 / steps,
        steps=steps,
        batch_size=2 * batch,  # room for Poisson samples above the mean
        public_count=lambda count: count,
        mode=mode,
    )


def run(options: Namespace) -> Result:
    """`steps` steps on the same batches in every mode; plain SGD goes over the same number of batches of that size."""
    heads = ("model", "batch", "plain, ms", *MODES, "auto", "to best", "to Opacus's")
    table = Table(*heads, title="time relative to plain SGD, and that of auto's mode relative to Opacus's own clipping")
    repetitions, steps = options.repetitions, options.steps
    rows, points = [], []
    for name, make in MODELS.items():
        for batch in BATCHES:
            model, data = make(), examples(batch * steps)
            plain = LocalTraining(loss=F.cross_entropy, optimizer=sgd, local_epochs=1, batch_size=batch)
            trainings = {"plain": plain, **{mode: private_training(mode, batch, steps) for mode in MODES}}
            trainings |= {f"{mode}, Opacus's": OpacusTraining(trainings[mode]) for mode in COMPARED}
            arms = {
                key: (lambda training=training, model=model, data=data: training(model, data, seed=(0,)))
                for key, training in trainings.items()
            }
            timed = alternate(arms, repetitions)
            points += [Point(f"{name}, batch {batch}", key, value.seconds) for key, value in timed.items()]
            chosen = choose_mode(model, batch)[0]
            best = min(timed[mode].median for mode in MODES)
            ratios = {mode: timed[mode].median / timed["plain"].median for mode in MODES}
            to_opacus = {mode: timed[mode].median / timed[f"{mode}, Opacus's"].median for mode in COMPARED}
            row = {
                "model": name,
                "batch": batch,
                "steps": steps,
                "auto": chosen,
                "auto_to_best": timed[chosen].median / best,
            }
            rows.append(
                row
                | {
                    "to_plain": ratios,
                    "to_opacus": to_opacus,
                    "seconds": {key: value.seconds for key, value in timed.items()},
                }
            )
            shown = [f"{ratios[mode]:.2f}" for mode in MODES]
            last = [f"{row['auto_to_best']:.2f}", f"{to_opacus[chosen]:.2f}"]
            table.add_row(name, str(batch), f"{1e3 * timed['plain'].median:.1f}", *shown, chosen, *last)
    return Result(rows, table, points, "seconds")
