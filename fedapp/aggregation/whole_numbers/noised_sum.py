"""Sums of whole numbers to which the clients themselves have added noise (`NoisedIntegers`)."""

import logging

import numpy as np
import torch
from numpy.typing import NDArray

from fedapp.aggregation.protocol import Aggregate, Train
from fedapp.aggregation.reply_log import ReplyLog
from fedapp.aggregation.whole_numbers.trained_vector import nothing_sent
from fedapp.common.state_digest import State
from fedapp.privacy.noised_integers import NoisedIntegers
from fedapp.updates.steps import flatten, unflatten
from fedapp.wire.instruction import Instruction
from fedapp.wire.reply import ClientReport

__all__ = ["noised_aggregate", "noised_vector"]

log = logging.getLogger("flwr")


def noised_vector(
    client: int, noised: NoisedIntegers, instruction: Instruction, model: State, train: Train
) -> tuple[ClientReport, NDArray[np.int64] | None]:
    """What may be said of a client's training, and its update with its noise; None where it sends nothing.

    It does so before it has paid only. After that it never rejects: whether it did would be a bit of its data without
    noise. Where there is no update it sends zeros and its noise, and its own log says why.
    """
    template = {key: value for key, value in model.items() if value.is_floating_point()}
    report, update = train(client, instruction, model)
    if report.declined or (report.rejected is not None and report.privacy is None):
        return nothing_sent(report)
    values = np.zeros(sum(value.numel() for value in template.values()))
    if report.rejected is None:
        values = flatten(update, template).double().numpy()
    else:
        log.error("client %d sends noise alone: %s", client, report.rejected)
    return ClientReport(client, privacy=report.privacy), noised.encode(values, instruction.server_round)


def noised_aggregate(
    noised: NoisedIntegers,
    total: NDArray[np.int64],
    survivors: tuple[int, ...],
    template: State,
    replies: ReplyLog,
    modulus_bits: int,
) -> Aggregate:
    """The sum of clipped updates with all noise, of weight one for each client in it."""
    wrapped, entries = noised.wrapped(total), noised.length
    warnings = {
        "wrapped": f"{wrapped} of {entries} entries of the sum are at the edge of secure_aggregation.modulus_bits="
        f"{modulus_bits}, so that as many may have gone over it: the result is less accurate, and no less private"
    }
    return Aggregate(
        total=unflatten(torch.from_numpy(noised.decode(total, replies.server_round)), template),
        weight=float(len(survivors)),
        survivors=survivors,
        replies=replies,
        scalars={"wrapped": wrapped / entries},
        warnings=warnings if wrapped else {},
    )
