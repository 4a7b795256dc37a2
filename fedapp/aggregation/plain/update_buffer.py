"""Updates of several rounds in one sum: what the plain protocol does for rounds that do not wait for a cohort.

Each reply is decoded by itself, with the plan of the round in which its client was asked, and kept until the server
steps: memory is O(buffer * model). The sum is the plain protocol's, exact whatever the order.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fedapp.aggregation.exact_sum import examine
from fedapp.aggregation.plain.server import PlainServer
from fedapp.common.state_digest import State
from fedapp.wire.instruction import Params
from fedapp.wire.model import GlobalModel
from fedapp.wire.reply import Reply

__all__ = ["UpdateBuffer"]


@dataclass(frozen=True)
class Mean:
    """What a buffer comes to: `total`, which is to be divided by `weight`, and who is not in it (`unused`)."""

    total: State
    weight: float
    unused: Mapping[int, str]


class UpdateBuffer(PlainServer):
    """Nothing of it is left from step to step."""

    @property
    def counts_alike(self) -> bool:
        """Whether the rule looks at single updates, and counts all alike."""
        return self._rule({}).each

    def decoded(self, reply: Reply, client: int, model: GlobalModel, plan: Mapping[str, Params]) -> State:
        """A client's update, screened, in the model's form. Raises ValueError or UpdateRejected, with the reason."""
        if reply.total or reply.updates.keys() != {client}:
            raise ValueError(f"bad reply: no update of client {client} alone")
        form = self._steps.template(model.template)
        update, _ = self._restored(reply.updates[client], form, plan)
        if not self._steps.steps:
            return update
        # Steps that work on sums are undone on a sum of one, since others may be of another round.
        doubles = {key: value.double() for key, value in update.items()}
        total = self._steps.on_total(doubles, 1.0, (client,), plan, 0.0)
        found = {key: total[key].to(value.dtype) for key, value in model.template.items()}
        if (fault := examine(found, model.template).fault) is not None:
            raise ValueError(fault)
        return found

    def mean(
        self,
        updates: Mapping[int, State],
        weights: Mapping[int, float],
        staleness_weights: Mapping[int, float],
        model: GlobalModel,
    ) -> Mean:
        """Of updates by client. The sum counts each by `weights` times `staleness_weights`, and is divided by the
        weights alone, so that a stale buffer makes a small step (Nguyen et al. 2022). Robust rules count all alike."""
        rule = self._rule(model.template)
        for client in sorted(updates):
            rule.add(client, updates[client], weights[client] * staleness_weights[client])
        total, weight = rule.result()
        if not rule.each:
            weight = math.fsum(weights[client] for client in updates)
        return Mean(total, weight, dict(rule.unused))
