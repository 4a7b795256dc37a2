"""One client's training, as the whole numbers that go into a sum."""

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedapp.aggregation.protocol import Train
from fedapp.aggregation.whole_numbers.digits import to_digits
from fedapp.aggregation.whole_numbers.fixed_point import FixedPoint
from fedapp.aggregation.whole_numbers.metrics import encode
from fedapp.aggregation.whole_numbers.quantise import fit, quantise
from fedapp.common.seeding import derive_seed
from fedapp.common.state_digest import State
from fedapp.updates.steps import flatten
from fedapp.wire.instruction import Instruction
from fedapp.wire.reply import ClientReport

__all__ = ["nothing_sent", "trained_vector"]

log = logging.getLogger("flwr")


def trained_vector(
    client: int,
    weight: float,
    instruction: Instruction,
    model: State,
    train: Train,
    numbers: FixedPoint,
    metrics: Mapping[str, float],
    seed: int,
) -> tuple[ClientReport, NDArray[np.int64] | None]:
    """What may be said of a client's training, and its update with its metrics, quantised; None where it sends nothing.

    `weight`: 1 is the cohort's mean. `metrics`: by name, the largest value of each metric that goes along. `seed`: the
    run's.
    """
    template = {key: value for key, value in model.items() if value.is_floating_point()}
    if numbers.levels:  # which hold the weight that the cohort has agreed on
        instruction = replace(instruction, clients=(client,), weights=(weight,))
    report, update = train(client, instruction, model)
    if report.declined or report.rejected is not None:
        return nothing_sent(report)
    form = {**template, **update}  # with the steps' scalars behind the model's own
    if numbers.levels:
        values, clipped = flatten(update, form).double().numpy(), 0.0
    else:
        values, clipped = fit(flatten(update, form).double().numpy(), numbers.clip)
    if clipped:
        log.warning("client %d: %.3g of its update lies beyond secure_aggregation.clip", client, clipped)
    found = {
        "train_loss": report.train_loss,
        "clipped": clipped,
        **({"val_loss": report.val_loss} if report.val_examples else {}),
        **({f"val_{name}": value for name, value in report.val_metrics.items()} if report.val_examples else {}),
    }
    # From the run's seed, as training is: rounding hides nothing, and so the run can be repeated bit for bit.
    random = np.random.default_rng(derive_seed(seed, "rounding", instruction.server_round, client))
    told = ClientReport(client, privacy=report.privacy)
    encoded = encode(found, metrics, numbers.of_metrics)
    if not numbers.levels:
        return told, quantise(np.concatenate([values, encoded]), weight, numbers, random)
    whole = to_digits(quantise(encoded, weight, numbers.of_metrics, random), numbers)
    return told, np.concatenate([values.astype(np.int64), whole])


def nothing_sent(report: ClientReport) -> tuple[ClientReport, None]:
    """What is said of a client that has declined, or whose update must not be sent; why stays in its log."""
    if report.rejected is not None:
        log.error("client %d sends nothing: %s", report.client, report.rejected)
    why = "its update was not sent (see the client's log)"
    rejected = why if report.rejected is not None else None
    return ClientReport(report.client, rejected=rejected, declined=report.declined, privacy=report.privacy), None
