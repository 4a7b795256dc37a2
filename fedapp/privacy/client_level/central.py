"""privacy=client_dp with a trusted server (DP-FedAvg, McMahan et al. 2018)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from fedapp.common.errors import ConfigError
from fedapp.config import Config
from fedapp.data.findings import Findings
from fedapp.learning.build import Parts, build_training
from fedapp.models.shared_state import shared_state
from fedapp.privacy.accounting import Spending, calibrate
from fedapp.privacy.budget import Budget
from fedapp.privacy.client_level.central_step import CentralNoise, CentralStep
from fedapp.privacy.client_level.client_dp import ClientDp
from fedapp.privacy.client_level.client_protection import ClientProtection, TwofoldProtection
from fedapp.privacy.client_level.foresight import foresight
from fedapp.privacy.client_level.planned_noise import check_metrics, planned_noise
from fedapp.privacy.ledger import FileLedger
from fedapp.privacy.limits import LARGEST_DELTA, OwnLimits
from fedapp.privacy.option import PrivacyOption
from fedapp.privacy.protection import Protection
from fedapp.privacy.sampling import Sampling
from fedapp.privacy.server_budget import ServerBudget

__all__ = ["CentralClientDp", "trained_entries"]


@dataclass(frozen=True)
class CentralClientDp(PrivacyOption):
    """`keys`: those of the config."""

    keys: ClientDp

    discloses_metrics = False
    discloses_cohort = False

    @property
    def spends(self) -> bool:  # type: ignore[override]
        """Clients pay for their single examples alone; for whole clients the server does."""
        return self.keys.examples is not None

    def conflicts(self, config: Config, parts: Parts) -> None:
        keys, federation = self.keys, config.federation
        check_metrics(keys, config)
        keys.check_both(config, parts)
        check_float32(parts)
        if federation.min_clients > 1:
            raise ConfigError(
                f"federation.min_clients={federation.min_clients}: under privacy=client_dp a round that changes nothing"
                " would tell how many clients were in it; set it to 1: every round counts, an empty one too"
            )
        if federation.exclude_after is not None:
            raise ConfigError(
                f"federation.exclude_after={federation.exclude_after}: under privacy=client_dp the cohort is a secret"
                " sample of all clients, whatever they did before; leave it null"
            )
        for step in self.steps(config, parts):
            if 2 * step.room > keys.clipping_norm:
                raise ConfigError(
                    f"privacy.clipping_norm={keys.clipping_norm:g}: rounding moves an update by up to {step.room:.2g}"
                    f" with privacy.population={keys.population_of(config)} clients; set it higher"
                )

    def check_simulation(self, config: Config, parts: Parts) -> None:
        """Devices keep the same on their own disks, where it tells them nothing new."""
        personal = not parts.is_whole or parts.personal.own is not None
        kept = "federation.personal" if personal else "privacy=client_and_example_dp"
        if config.federation.fraction_train < 1 and (self.spends or personal):
            raise ConfigError(
                f"{kept}: each client of a simulation would keep in the run directory in which rounds it took part, and"
                " amplification by sampling holds only while nobody knows; set federation.fraction_train=1, which"
                " claims none"
            )

    def check_site(self, limits: OwnLimits, data: Mapping[str, Any]) -> None:
        """The server is trusted with how data is read, but for what protects single examples."""
        if (examples := self.keys.of_examples) is not None:
            examples.check_site(limits, data)

    def protection(self, config: Config, parts: Parts, limits: OwnLimits, *, on_device: bool) -> Protection:
        if on_device and self.keys.void:
            raise ConfigError(f"privacy.noise_source={self.keys.noise_source}: not on a device, whose data is real")
        if (examples := self.keys.of_examples) is not None:
            inner = examples.protection(config, parts, limits, on_device=on_device)
            return TwofoldProtection(inner, self.keys.weight)
        training = build_training(config, parts, limits.max_seconds, limits.max_steps)
        return ClientProtection(training, self.keys.weight, training.check_work, self._noise(config, parts).metrics)

    def steps(self, config: Config, parts: Parts) -> tuple[CentralStep, ...]:
        return (CentralStep(self._noise(config, parts), self.keys.clipping_norm, trained_entries(parts)),)

    def sampling(self, config: Config) -> Sampling:
        population, rate = self.keys.population_of(config), config.federation.fraction_train
        # Twice the population: no weights of a round sum to one, which is a single update's (`CentralStep.on_reply`).
        unit = 2.0 ** -(math.ceil(math.log2(population)) + 1)
        return Sampling(rate, unit, rate * population, population, self.keys.noise_source)

    def budget(self, config: Config) -> Budget:
        """Of the whole registry, in rounds."""
        keys = self.keys
        cost = Spending(self._joint(config), config.federation.fraction_train, 1)
        most = keys.target_epsilon if keys.target_epsilon is not None else math.inf
        return Budget(cost, most, keys.delta_of(config), keys.accountant, 1, void=keys.void)

    def server_budget(self, config: Config, ledger: FileLedger, *, lasts: bool) -> ServerBudget:
        return ServerBudget(self.budget(config), ledger, lasts=lasts, begins=self.keys.new_ledger)

    def foresight(self, config: Config, parts: Parts) -> Findings:
        noise = self._noise(config, parts)
        trained = int(trained_entries(parts).sum())
        return foresight(
            self.keys.clipping_norm,
            noise.multiplier,
            trained,
            noise.expected,
            self.keys.population_of(config),
            without_metrics=noise.without_metrics,
        )

    def summary(self, config: Config, parts: Parts) -> dict[str, Any]:
        keys, noise = self.keys, self._noise(config, parts)
        population = keys.population_of(config)
        return {
            "unit": "all that one client contributes (added or removed; replacing it counts twice: 2 epsilon,"
            " (1 + e^epsilon) delta)",
            "target_epsilon": keys.target_epsilon,
            "accountant": keys.accountant,
            "noise_multiplier": noise.joint,
            "update_noise_multiplier": noise.multiplier,
            "sample_rate": config.federation.fraction_train,
            "steps_per_round": 1,
            "clipping_norm": keys.clipping_norm,
            "quantile": keys.quantile,
            "population": population,
            "delta_by_population": population**-1.1,
            "delta_largest": LARGEST_DELTA,
            "noise_source": keys.noise_source,
            **({"metrics": noise.metrics.summary(keys.metrics_epsilon)} if noise.metrics is not None else {}),
            **({"examples": examples.summary(config, parts)} if (examples := keys.of_examples) else {}),
        }

    def _joint(self, config: Config) -> float:
        """The noise multiplier of all that a round releases. Raises ConfigError for a budget that no noise keeps to."""
        keys, rate, rounds = self.keys, config.federation.fraction_train, config.federation.num_rounds
        target, delta = keys.target_epsilon, keys.delta_of(config)
        return keys.planned_sigma(lambda: calibrate(target, delta, rate, rounds, keys.accountant))

    def _noise(self, config: Config, parts: Parts) -> CentralNoise:
        """Raises ConfigError, as `planned_noise` does."""
        return planned_noise(self.keys, config, parts.task, self.sampling(config), self._joint(config))


def trained_entries(parts: Parts) -> torch.Tensor:
    """(n,) bool: of the floating-point values that travel, those that are trained."""
    trained = {name for name, parameter in parts.model.named_parameters() if parameter.requires_grad}
    return torch.cat([torch.full((value.numel(),), name in trained) for name, value in _travelling(parts).items()])


def check_float32(parts: Parts) -> None:
    """Raises ConfigError for a model of other values: an update is clipped as one vector, together with scalars of
    float32, and what is rounded to another dtype after that may be longer."""
    for name, value in _travelling(parts).items():
        if value.dtype != torch.float32:
            raise ConfigError(
                f"privacy=client_dp: {name} of the model is {str(value.dtype).removeprefix('torch.')}, and updates are"
                " clipped as one vector of float32; give the model float32 values (model.float())"
            )


def _travelling(parts: Parts) -> dict[str, torch.Tensor]:
    return {name: value for name, value in shared_state(parts.model).items() if value.is_floating_point()}
