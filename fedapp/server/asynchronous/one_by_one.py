"""What does not go with updates that come one by one."""

from fedapp.aggregation.protocol import protocol_of
from fedapp.aggregation.selection.selection import selection_of
from fedapp.common.errors import ConfigError
from fedapp.config import Config, choice_of
from fedapp.privacy.option import PrivacyOption, privacy_of
from fedapp.updates.steps import UpdateSteps, steps_of

__all__ = ["check_planned", "check_single"]


def check_single(config: Config, what: str) -> None:
    """Raises ConfigError for a protocol whose sums are bound to one cohort, and for secret cohorts."""
    protocol = protocol_of(config)
    chosen = choice_of("secure_aggregation", config.secure_aggregation["_target_"])
    if protocol.buffer(config, UpdateSteps()) is None:
        raise ConfigError(
            f"{what}, and {chosen} binds a cohort to one model and"
            " shows the server its sum alone; set secure_aggregation=none, or rounds=synchronous without"
            " federation.client_speed"
        )
    if steps_of(config).level_bits is not None:
        codec = choice_of("compression", config.compression["_target_"])
        raise ConfigError(
            f"{what}, and {codec} sends levels that are summed over a cohort of one plan; set compression=none,"
            " one that is undone for each reply (drive, top_k), or strategy.max_update_norm, with which each update has"
            " levels of its own"
        )
    if selection_of(config).asks:
        raise ConfigError(
            f"{what}, and {choice_of('cohort', config.cohort['_target_'])} asks candidates for their losses before a"
            " whole cohort is chosen; set cohort=uniform or cohort=by_data"
        )
    if config.strategy.fairness is not None:
        raise ConfigError(
            f"{what}, and strategy.fairness works on the sum over a whole cohort; leave it null (strategy=fedavg)"
        )
    if not privacy_of(config).discloses_cohort:
        raise ConfigError(
            f"{what}, and {choice_of('privacy', config.privacy['_target_'])} tells nobody who was asked; leave"
            " federation.client_speed=none"
        )


def check_planned(config: Config, privacy: PrivacyOption) -> None:
    """Under DP-SGD, what a client may spend is planned by how often it trains."""
    keys = config.privacy
    if privacy.spends and keys.get("planned_rounds") is None and keys.get("noise_multiplier") is None:
        raise ConfigError(
            "privacy.planned_rounds=null: with rounds=buffered fast clients train more often than others; set it to how"
            f" often one may, at most federation.num_rounds={config.federation.num_rounds}"
        )
