"""cohort=power_of_choice: of more candidates than a round needs, those with the largest loss (Cho et al., AISTATS 2022,
pi_pow-d): the model soon does better where it does worst, at the price of one more message for each candidate."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated

from pydantic import Field

from fedapp.aggregation.protocol import protocol_of
from fedapp.aggregation.selection.selection import Group, Losses, Selection, check_has_choice, weighted_sample
from fedapp.common.errors import ConfigError
from fedapp.config import Config
from fedapp.learning.build import Parts
from fedapp.privacy.option import privacy_of

__all__ = ["PowerOfChoice"]


@dataclass(frozen=True)
class PowerOfChoice(Selection):
    """`candidates`: so many for each client that is needed, drawn by their examples. Candidates are asked anew in every
    round; one without a finite loss is chosen last."""

    asks = True
    candidates: Annotated[float, Field(gt=1, le=1000)] = 2.0
    words = ", those with the largest loss of more candidates"

    def conflicts(self, config: Config, parts: Parts) -> None:
        if not privacy_of(config).discloses_metrics:
            raise ConfigError(
                "cohort=power_of_choice: candidates tell the server their loss without noise, and who is chosen tells"
                " of it, too; under this privacy option no loss may leave a client; use cohort=uniform"
            )
        if not protocol_of(config).individual_updates:
            raise ConfigError(
                "cohort=power_of_choice: candidates tell the server their own loss, and with secure_aggregation no"
                " client's own figures leave it; use cohort=uniform or cohort=by_data"
            )
        check_has_choice(config, "cohort=power_of_choice")

    def chosen(
        self, groups: Sequence[Group], count: int, random: Random, num_examples: Mapping[int, int], losses: Losses
    ) -> list[Group]:
        asked = min(len(groups), math.ceil(round(self.candidates * count, 9)))
        drawn = sorted(weighted_sample(groups, asked, random, num_examples))
        if len(drawn) <= count:
            return drawn
        told = losses([client for group in drawn for client in group])

        def loss(group: Group) -> float:
            found = [told.get(client, -math.inf) for client in group]
            return max(value if math.isfinite(value) else -math.inf for value in found)

        return sorted(drawn, key=lambda group: (-loss(group), group))[:count]
