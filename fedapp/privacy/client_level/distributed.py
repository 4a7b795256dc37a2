"""privacy=client_dp without a trusted server: each client adds a share of Skellam noise before its update is masked
(Agarwal et al. 2021).

Every member of a cohort is told who else is in it, so no amplification by sampling is claimed: a round costs its
members the same whoever was sampled, and costs others nothing. Adjacent are two runs in one of which a client sends
zeros, and its noise, in place of its update.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedapp.common.errors import ConfigError
from fedapp.config import Config
from fedapp.data.findings import Findings
from fedapp.learning.build import Parts, build_training
from fedapp.privacy.accounting import SkellamSpending, calibrate_skellam, epsilon
from fedapp.privacy.budget import Budget
from fedapp.privacy.client_level.central import trained_entries
from fedapp.privacy.client_level.client_dp import ClientDp
from fedapp.privacy.client_level.client_protection import PayingProtection
from fedapp.privacy.client_level.foresight import foresight
from fedapp.privacy.client_level.skellam_noise import SkellamNoise, Sums, scale_of
from fedapp.privacy.limits import LARGEST_DELTA, OwnLimits
from fedapp.privacy.noise import make_noise
from fedapp.privacy.option import PrivacyOption
from fedapp.privacy.protection import Protection
from fedapp.privacy.server_accounts import ServerAccounts
from fedapp.updates.steps import steps_of

__all__ = ["DistributedClientDp"]

log = logging.getLogger("flwr")

COARSE = 1.5  # times the clipping norm: a sensitivity that rounding makes larger than this costs more than it is worth


@dataclass(frozen=True)
class DistributedClientDp(PrivacyOption):
    """`keys`: those of the config."""

    keys: ClientDp

    discloses_metrics = False
    spends = True

    def conflicts(self, config: Config, parts: Parts) -> None:
        keys = self.keys
        keys.check_both(config, parts)
        if keys.examples is not None:
            raise ConfigError(
                "privacy.examples: with secure_aggregation a client would keep two ledgers, which is not there yet; use"
                " secure_aggregation=none, or privacy=client_dp alone"
            )
        if keys.quantile is not None:
            raise ConfigError(
                f"privacy.quantile={keys.quantile:g}: with secure_aggregation the scale of whole numbers follows from a"
                " fixed clipping norm; set it to null, or secure_aggregation=none"
            )
        if keys.metrics_epsilon is not None:
            raise ConfigError(
                f"privacy.metrics_epsilon={keys.metrics_epsilon:g}: with secure_aggregation the whole numbers that"
                " clients mask hold their updates alone; leave it null, and judge the model on the server's test data"
            )
        if steps_of(config).steps:
            raise ConfigError(
                f"compression._target_={config.compression['_target_']}: under privacy=client_dp with"
                " secure_aggregation updates are whole numbers with noise, which nothing may change; use"
                " compression=none"
            )
        self._budget(config, parts, OwnLimits())

    def check_site(self, limits: OwnLimits, data: Mapping[str, Any]) -> None:
        """However data is read, all of a client's is protected."""

    def protection(self, config: Config, parts: Parts, limits: OwnLimits, *, on_device: bool) -> Protection:
        if on_device:
            self._check_device(limits)
        budget = self._budget(config, parts, limits)
        if on_device and not budget.cost.noise_multiplier:
            raise ConfigError("privacy.noise_multiplier=0: not on a device, whose data is real")
        training = build_training(config, parts, limits.max_seconds, limits.max_steps)
        return PayingProtection(training, self.keys.weight, budget, training.check_work)

    def _check_device(self, limits: OwnLimits) -> None:
        """What a server may not ask of a device. Raises ConfigError."""
        keys = self.keys
        if keys.void:
            raise ConfigError(f"privacy.noise_source={keys.noise_source}: not on a device, whose data is real")
        if limits.peers is None or limits.min_cohort is None:
            raise ConfigError(
                "peers, min-cohort: under privacy=client_dp with secure_aggregation a device's noise is enough together"
                " with the others' only; its node-config must say who they may be (--peers), and how many there must be"
            )
        if keys.honest_share > limits.honest_share:
            raise ConfigError(
                f"privacy.honest_share={keys.honest_share:g}: this SuperNode's operator takes fewer of the others to be"
                " honest (node-config honest-share); set it lower"
            )

    def noised_integers(self, config: Config, parts: Parts) -> SkellamNoise:
        sums = self._sums(config, parts)
        seed, source = config.run.seed, self.keys.noise_source
        return SkellamNoise(
            sums, self._multiplier(config, sums), trained_entries(parts), seed, lambda: make_noise(source, seed)
        )

    def server_accounts(self, config: Config, parts: Parts, num_examples: Mapping[int, int]) -> ServerAccounts:
        return ServerAccounts(self._budget(config, parts, OwnLimits()), num_examples)

    def foresight(self, config: Config, parts: Parts) -> Findings:
        made = self.noised_integers(config, parts)
        sums = made.sums
        multiplier = math.sqrt(made.share * sums.expected) / made.scale / sums.norm
        return foresight(sums.norm, multiplier, sums.length, sums.expected, self.keys.population_of(config))

    def summary(self, config: Config, parts: Parts) -> dict[str, Any]:
        keys, made, budget = self.keys, self.noised_integers(config, parts), self._budget(config, parts, OwnLimits())
        population = keys.population_of(config)
        return {
            "unit": "all that one client contributes (its update, or zeros in its place; replacing it counts twice:"
            " 2 epsilon, (1 + e^epsilon) delta)",
            "target_epsilon": keys.target_epsilon,
            "accountant": "rdp",
            "noise_multiplier": made.multiplier,
            "sample_rate": 1.0,
            "steps_per_round": 1,
            "clipping_norm": keys.clipping_norm,
            "honest_share": keys.honest_share,
            "least_cohort": made.least,
            "max_participations": budget.most_rounds,
            "scale": made.scale,
            "sensitivity_l2": made.l2,
            "noise_variance_of_a_client": made.share,
            "population": population,
            "delta_by_population": population**-1.1,
            "delta_largest": LARGEST_DELTA,
            "noise_source": keys.noise_source,
        }

    # --- the numbers ----------------------------------------------------------------------------------------------

    def _sums(self, config: Config, parts: Parts) -> Sums:
        keys = self.keys
        expected = max(2, math.ceil(round(config.federation.fraction_train * keys.population_of(config), 9)))
        least = max(2, math.ceil(round((1 - keys.tolerated_dropouts) * expected, 9)))
        length = int(trained_entries(parts).sum())
        bits = int(config.secure_aggregation["modulus_bits"])
        return Sums(length, keys.clipping_norm, bits, expected, least, keys.honest_share)

    def _multiplier(self, config: Config, sums: Sums) -> float:
        """Raises ConfigError for a modulus that is too small for this noise, and as `calibrate_skellam` does."""
        keys, rounds = self.keys, self._participations(config)
        target, delta = keys.target_epsilon or math.inf, keys.delta_of(config)
        found = keys.planned_sigma(
            lambda: calibrate_skellam(target, delta, rounds, lambda sigma: _spending(sums, sigma))
        )
        scale = scale_of(sums, found)
        if not scale or sums.sensitivity(scale)[1] > COARSE * scale * sums.norm:
            raise ConfigError(
                f"secure_aggregation.modulus_bits={sums.modulus_bits}: too small for sums over {sums.expected} clients"
                f" of {sums.length} values with a noise multiplier of {found:.3g}: whole numbers would be so coarse"
                " that rounding costs more than the noise; set it higher"
            )
        return found

    def _participations(self, config: Config) -> int:
        most, rounds = self.keys.max_participations, config.federation.num_rounds
        return rounds if most is None else min(most, rounds)

    def _budget(self, config: Config, parts: Parts, limits: OwnLimits) -> Budget:
        """Raises ConfigError for one that lasts for no round."""
        keys, sums = self.keys, self._sums(config, parts)
        cost = _spending(sums, self._multiplier(config, sums))
        most = min(
            [limit for limit in (keys.target_epsilon, limits.max_epsilon) if limit is not None], default=math.inf
        )
        delta = min(keys.delta_of(config), LARGEST_DELTA) if limits.of_device else keys.delta_of(config)
        if not keys.void and epsilon([cost], delta, "rdp") > most:
            raise ConfigError(
                f"privacy.noise_multiplier={cost.noise_multiplier:.4g}: one round alone costs more than epsilon"
                f" {most:g} (privacy.target_epsilon, or a device's max-epsilon), so no client would train; set it"
                " higher, or null"
            )
        return Budget(cost, most, delta, "rdp", 1, void=keys.void, most_rounds=keys.max_participations)


def _spending(sums: Sums, multiplier: float) -> SkellamSpending:
    l1, l2 = sums.sensitivity(scale_of(sums, multiplier))
    return SkellamSpending((multiplier * l2) ** 2, l2, l1, 1)
