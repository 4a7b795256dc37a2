"""From config to objects, for secure aggregation: what cannot work is refused before anything starts."""

import math

from fedapp.aggregation.secaggplus.client import SecureSite
from fedapp.aggregation.secaggplus.metrics import LARGEST
from fedapp.aggregation.secaggplus.pins import read_identity, read_peers
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.secaggplus.stages import Timeouts
from fedapp.client.site import Site
from fedapp.common.errors import ConfigError
from fedapp.config import Config
from fedapp.learning.build import Parts
from fedapp.learning.metrics import possible
from fedapp.privacy.limits import OwnLimits
from fedapp.server.population.cohort import cohort_size

__all__ = [
    "build_secure_site",
    "build_settings",
    "build_timeouts",
    "check_secure",
    "check_secure_cohort",
    "figure_ranges",
]

NEEDED = ("clip", "bits", "modulus_bits", "keys_timeout", "shares_timeout", "unmask_timeout")


def build_settings(config: Config) -> Settings:
    """Raises ConfigError for a key that is null and must not be."""
    secure = config.secure_aggregation
    for name in NEEDED:
        if getattr(secure, name) is None:
            raise ConfigError(f"secure_aggregation.{name}=null: a value is needed under secure_aggregation=secaggplus")
    assert secure.clip is not None
    assert secure.bits is not None
    assert secure.modulus_bits is not None
    return Settings(secure.neighbours, secure.threshold, secure.clip, secure.bits, secure.modulus_bits)


def build_timeouts(config: Config) -> Timeouts:
    secure, training = config.secure_aggregation, config.federation.round_timeout
    given = (secure.keys_timeout, secure.shares_timeout, secure.masked_timeout, secure.unmask_timeout)
    return Timeouts(*(training if seconds is None else seconds for seconds in given))


def check_secure(config: Config, parts: Parts) -> None:
    """Refuse what needs more than the sum of a cohort."""
    build_settings(config)
    if config.federation.final_evaluation:
        raise ConfigError(
            "federation.final_evaluation=true: under secure_aggregation=secaggplus no single client's figures leave it;"
            " set it to false"
        )
    if parts.task.schema.scaling.kind == "federated":
        raise ConfigError(
            "data.scaling=federated: under secure_aggregation=secaggplus the means and deviations of single clients'"
            " data must not leave them; use public constants: data.scaling=published (data=breast_cancer), given or"
            " none (data=csv)"
        )


def check_secure_cohort(config: Config, num_clients: int) -> None:
    """Refuse, with the arithmetic, what cannot work with the cohorts that so many clients make."""
    federation, settings = config.federation, build_settings(config)
    size = cohort_size(num_clients, federation.fraction_train, federation.min_clients)
    settings.check(size)
    settings.check(min(num_clients, math.ceil(round(size * (1 + federation.over_selection), 9))))


def figure_ranges(config: Config, main_metric: str) -> dict[str, float]:
    """By name, the largest value of each figure that goes along with an update; none under differential privacy, which
    covers no figure."""
    if config.privacy.name != "none":
        return {}
    bounded = not possible(main_metric, 2.0)
    return {"train_loss": 64.0, "val_loss": 64.0, "val_metric": 1.0 if bounded else LARGEST, "clipped": 1.0}


def build_secure_site(config: Config, site: Site, limits: OwnLimits) -> SecureSite:
    """`limits`: what the SuperNode's operator asks for; two clients at least are a cohort."""
    return SecureSite(
        site,
        build_settings(config),
        figure_ranges(config, site.task.main_metric),
        min_cohort=max(2, limits.min_cohort or 0),
        identity=read_identity(limits.signing_key) if limits.signing_key is not None else None,
        peers=read_peers(limits.peers) if limits.peers is not None else None,
    )
