"""The server's step: a buffer of updates, each as old as it is, becomes the next model."""

from fedapp.aggregation.exact_sum import normalised
from fedapp.aggregation.plain.update_buffer import UpdateBuffer
from fedapp.server.asynchronous.open_round import OpenRound
from fedapp.server.asynchronous.policy import Policy
from fedapp.server.strategy import WeightedFedAvg
from fedapp.wire.model import GlobalModel

__all__ = ["stepped"]


def stepped(
    strategy: WeightedFedAvg, policy: Policy, buffer: UpdateBuffer, this: OpenRound, model: GlobalModel
) -> tuple[GlobalModel | None, dict[int, float]]:
    """The next model, None where there are too few updates for one; and by client, what it counted for."""
    roster = strategy.roster
    if len(this.updates) < strategy.min_clients:
        this.log.leave_out("nothing was aggregated: too few good replies")
        return None, {}
    counts = {client: roster.num_examples[client] for client in this.updates}
    weights = strategy.cohorts.weights(counts, roster.bound)
    discounts = {client: policy.discount(this.staleness[client]) for client in weights}
    mean = buffer.mean(this.updates, weights, discounts, model)
    this.log.unused.update(mean.unused)
    divisor = strategy.cohorts.divisor(mean.weight)
    if not divisor > 0:
        this.log.leave_out("nothing was aggregated: the updates have no weight")
        return None, {}
    update = {key: value.div_(divisor) for key, value in mean.total.items()}
    state = strategy.server_optimizer.step(model.state, update, strategy.server_lr(this.server_round))
    return GlobalModel(state), normalised({c: weights[c] * discounts[c] for c in weights if c not in mean.unused})
