"""privacy=client_dp: the keys of the option, and which of its two forms a run has."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from fedapp.common.errors import ConfigError
from fedapp.config import Config, instantiate, option
from fedapp.learning.build import Parts
from fedapp.privacy.limits import LARGEST_DELTA, OwnLimits
from fedapp.privacy.option import PrivacyOption
from fedapp.privacy.protection import Protection
from fedapp.updates.steps import steps_of

__all__ = ["ClientDp"]

EXAMPLES = "fedapp.privacy.dp_sgd.DpSgd"

Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class ClientDp(PrivacyOption):
    """The keys of `conf/privacy/client_dp.yaml`, which says what each means.

    Where the server sees single updates it clips them and adds the noise (`central.py`); where it sees their sum only,
    each client adds a share of the noise before its update is masked (`distributed.py`).
    """

    target_epsilon: Annotated[float, Field(gt=0)] | None
    noise_multiplier: Annotated[float, Field(ge=0, le=1e4)] | None
    delta: Annotated[float, Field(gt=0, le=0.1)] | None
    population: Annotated[int, Field(ge=1, le=2**30)] | None
    clipping_norm: Annotated[float, Field(ge=1e-4, le=1e4)]
    count_cap: Annotated[int, Field(ge=1)] | None
    accountant: Literal["rdp", "prv"]
    quantile: Annotated[float, Field(gt=0, lt=1)] | None
    quantile_rate: Annotated[float, Field(gt=0, le=2)]
    quantile_noise: Annotated[float, Field(gt=0)] | None
    honest_share: Share
    tolerated_dropouts: Annotated[float, Field(ge=0, lt=1)]
    max_participations: Annotated[int, Field(ge=1)] | None
    noise_source: Literal["os_entropy", "seeded_for_tests"]
    examples: dict[str, Any] | None = None
    metrics_epsilon: Annotated[float, Field(gt=0)] | None = None
    metrics_count_cap: Annotated[int, Field(ge=1)] = 1
    metrics_loss_cap: Annotated[float, Field(gt=0, le=1e6)] = 5.0
    new_ledger: bool = False

    free_keys = frozenset({"new_ledger"})
    discloses_metrics = False
    spends = False

    def __post_init__(self) -> None:
        if self.noise_multiplier is None and self.target_epsilon is None:
            raise ConfigError("privacy.noise_multiplier=null, privacy.target_epsilon=null: one of them is needed")

    def in_run(self, config: Config) -> PrivacyOption:
        protocol = instantiate("secure_aggregation", config.secure_aggregation)
        if protocol.individual_updates:
            from fedapp.privacy.client_level.central import CentralClientDp

            return CentralClientDp(self)
        if not protocol.takes_noised_integers:
            raise ConfigError(
                f"secure_aggregation._target_={config.secure_aggregation['_target_']}: hides single updates, which then"
                " need noise of the clients' own under privacy=client_dp, and this protocol adds none; use"
                " secure_aggregation=secaggplus, or none with a trusted server"
            )
        from fedapp.privacy.client_level.distributed import DistributedClientDp

        return DistributedClientDp(self)

    def check_site(self, limits: OwnLimits, data: Any) -> None:
        raise NotImplementedError("`in_run` says which form it is")

    def protection(self, config: Config, parts: Parts, limits: OwnLimits, *, on_device: bool) -> Protection:
        raise NotImplementedError("`in_run` says which form it is")

    # --- what both forms have in common ---------------------------------------------------------------------------

    def population_of(self, config: Config) -> int:
        """How many clients there are, as a public constant."""
        return self.population or config.federation.num_clients

    def delta_of(self, config: Config) -> float:
        """The smaller of 1e-5 and N^-1.1, unless one is given."""
        return self.delta or min(LARGEST_DELTA, self.population_of(config) ** -1.1)

    def weight(self, num_examples: int) -> float:
        """What a client multiplies its update by: of its own count and public constants alone."""
        return 1.0 if self.count_cap is None else min(num_examples / self.count_cap, 1.0)

    @property
    def of_examples(self) -> PrivacyOption | None:
        """What protects single examples besides. Raises ConfigError for what it does not take."""
        if self.examples is None:
            return None
        return option("privacy.examples", {"_target_": EXAMPLES, **self.examples}, PrivacyOption)

    @property
    def void(self) -> bool:
        """Whether the noise can be predicted, and so protects nobody."""
        return self.noise_source != "os_entropy"

    def check_both(self, config: Config, parts: Parts) -> None:
        """Raises ConfigError for whatever would leave a client uncovered, or does not go with clipped sums."""
        if self.delta_of(config) * self.population_of(config) >= 1:
            raise ConfigError(
                f"privacy.delta={self.delta}: must be below 1 / privacy.population={self.population_of(config)}: one"
                " client could be published whole; leave it null"
            )
        check_covered(config, parts, sums_metrics=self.metrics_epsilon is not None)
        if self.of_examples is not None:
            self.of_examples.conflicts(config, parts)

    def planned_sigma(self, cost: Any) -> float:
        """The noise multiplier: as given, or by `cost`, which calibrates one to the target."""
        found = self.noise_multiplier if self.noise_multiplier is not None else float(cost())
        if not math.isfinite(found):
            raise ConfigError(f"privacy.noise_multiplier={found}: must be finite")
        return found


def check_covered(config: Config, parts: Parts, *, sums_metrics: bool) -> None:
    """Raises ConfigError for what would tell of single clients beside the noised sum."""
    train, federation, strategy = config.train, config.federation, config.strategy
    if train.val_fraction and not sums_metrics:
        raise ConfigError(
            f"train.val_fraction={train.val_fraction}: under privacy=client_dp no validation metric leaves a client;"
            " set it to 0, or pay for noised sums of metrics by privacy.metrics_epsilon"
        )
    if federation.final_evaluation:
        raise ConfigError(
            "federation.final_evaluation=true: under privacy=client_dp no metric leaves a client; set it to false. The"
            " server's own test data costs nothing"
        )
    judged = federation.patience is not None or federation.target_accuracy is not None
    if judged and (not parts.is_whole or parts.source.test() is None):
        raise ConfigError(
            "federation.patience, federation.target_accuracy: under privacy=client_dp no metric leaves a client, and"
            " the server has no test data to judge the model by; leave them null"
        )
    for agreement in parts.task.agreements:
        raise ConfigError(
            f"{agreement.setting}: under privacy=client_dp {agreement.what} of clients' data must not leave them; use"
            f" public constants: {agreement.remedy}"
        )
    if instantiate("strategy.aggregation", strategy.aggregation, partial=True)({}).each:
        raise ConfigError(
            f"strategy.aggregation={strategy.aggregation['_target_']}: under privacy=client_dp updates are summed: one"
            " client can move a robust rule's result by more than the clipping norm; use strategy=fedavg, or another"
            " that averages"
        )
    if any(step.feeds_back for step in steps_of(config).steps):
        raise ConfigError(
            f"compression._target_={config.compression['_target_']}: adds to a client's update what it did not send of"
            " earlier ones (error feedback), so that under privacy=client_dp one client's part of a sum would be no"
            " longer bounded; set compression.error_feedback=false, or take another compression"
        )
    if strategy.max_update_norm is not None:
        raise ConfigError(
            f"strategy.max_update_norm={strategy.max_update_norm:g}: under privacy=client_dp privacy.clipping_norm"
            " bounds updates; leave it null"
        )
    if strategy.weight_cap is not None:
        raise ConfigError(
            f"strategy.weight_cap={strategy.weight_cap:g}: under privacy=client_dp a client's weight is"
            " min(count / privacy.count_cap, 1); leave it null"
        )
    if federation.over_selection:
        raise ConfigError(
            f"federation.over_selection={federation.over_selection:g}: under privacy=client_dp who answers first would"
            " decide who counts; set it to 0"
        )
    for name, module in parts.model.named_modules():
        if getattr(module, "track_running_stats", False):
            raise ConfigError(
                f"privacy=client_dp: layer {name} ({type(module).__name__}) keeps running statistics of clients' data,"
                " which no noise can keep positive; use GroupNorm (such as model.norm=group), or leave it frozen"
            )
