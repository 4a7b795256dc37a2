"""privacy=dp_sgd: DP-SGD on every client (Abadi et al. 2016, by Opacus), which protects each single example."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from fedapp.common.errors import ConfigError, FederationError, NodeConfigError
from fedapp.config import Config
from fedapp.learning.build import Parts
from fedapp.privacy.limits import LARGEST_DELTA, OwnLimits
from fedapp.privacy.option import PrivacyOption
from fedapp.privacy.pinned import pin
from fedapp.privacy.protection import Protection
from fedapp.privacy.server_accounts import ServerAccounts

if TYPE_CHECKING:
    from fedapp.privacy.plan import Plan

__all__ = ["DpSgd"]

log = logging.getLogger("flwr")


@dataclass(frozen=True)
class DpSgd(PrivacyOption):
    """The keys of `conf/privacy/dp_sgd.yaml`, which says what each means."""

    target_epsilon: Annotated[float, Field(gt=0)] | None
    noise_multiplier: Annotated[float, Field(ge=0, le=1e4)] | None
    delta: Annotated[float, Field(gt=0, le=0.1)] | None
    max_grad_norm: Annotated[float, Field(ge=0.01, le=1e6)]  # noise for a smaller one would vanish in float32
    sample_rate: Annotated[float, Field(gt=0, le=1)]
    planned_rounds: Annotated[int, Field(ge=1)] | None
    accountant: Literal["rdp", "prv"]
    grad_sample_mode: Literal["auto", "hooks", "functorch", "ew", "ghost"]
    round_counts_to: Annotated[int, Field(ge=1)]
    noise_source: Literal["os_entropy", "seeded_for_tests"]

    discloses_metrics = False
    spends = True

    def conflicts(self, config: Config, parts: Parts) -> None:
        """Whatever would leave a client uncovered, and a model or a budget that DP-SGD cannot work with."""
        self.plan(config, parts, OwnLimits())

    def plan(self, config: Config, parts: Parts, limits: OwnLimits) -> "Plan":
        """The budget and the way to train. `limits` are the operator's, which no config can lift."""
        self._check_uncovered(config, parts)
        from fedapp.privacy.plan import make_plan  # Opacus takes 2 s to import

        return make_plan(self, config, parts, limits)

    def _check_uncovered(self, config: Config, parts: Parts) -> None:
        train = config.train
        if train.val_fraction:
            raise ConfigError(
                f"train.val_fraction={train.val_fraction}: under privacy=dp_sgd no validation metric leaves a client;"
                " set it to 0"
            )
        if config.federation.final_evaluation:
            raise ConfigError(
                "federation.final_evaluation=true: under privacy=dp_sgd no metric leaves a client; set it to false"
            )
        for agreement in parts.task.agreements:
            raise ConfigError(
                f"{agreement.setting}: under privacy=dp_sgd {agreement.what} of clients' data must not leave them; use"
                f" public constants: {agreement.remedy}"
            )
        if train.max_seconds is not None:
            raise ConfigError(
                "train.max_seconds: under privacy=dp_sgd the number of steps must not depend on the data; leave it null"
            )
        if train.augmentation:
            raise ConfigError(
                f"train.augmentation=[{','.join(train.augmentation)}]: not under privacy=dp_sgd. Which change an"
                " example gets would depend on the examples drawn beside it; leave it empty"
            )
        if train.logit_adjustment:
            raise ConfigError(
                f"train.logit_adjustment={train.logit_adjustment:g}: under privacy=dp_sgd nothing is counted of a"
                " client's examples that no noise hides; set it to 0"
            )
        if train.precision != "fp32":
            raise ConfigError(
                f"train.precision={train.precision}: under privacy=dp_sgd, clipping and noise need fp32; set that"
            )

    def check_site(self, limits: OwnLimits, data: Mapping[str, Any]) -> None:
        """Pins how this device's data is read to what was first asked for."""
        if limits.ledger is None:
            return
        settings = {key: value for key, value in data.items() if key not in ("path", "test_path")}
        try:
            pin(limits.ledger.with_name(f"{limits.ledger.name}.data"), settings)
        except (OSError, FederationError) as error:
            log.error("node-config ledger-path: %s", error)
            raise ConfigError("ledger-path: the ledger cannot be read or written (see the client's log)") from None

    def protection(self, config: Config, parts: Parts, limits: OwnLimits, *, on_device: bool) -> Protection:
        if limits.max_seconds is not None:
            raise NodeConfigError(
                f"node-config max-seconds={limits.max_seconds:g}: under privacy=dp_sgd the number of steps must not"
                " depend on how fast this machine is; leave it out"
            )
        plan = self.plan(config, parts, limits)
        budget = plan.budget
        if on_device and (budget.void or not budget.cost.noise_multiplier):
            raise ConfigError(
                f"privacy.noise_source={self.noise_source}, privacy.noise_multiplier={budget.cost.noise_multiplier}:"
                " not on a device, whose data is real"
            )
        if on_device and (inferred := parts.source.from_rows()):
            raise ConfigError(
                f"{', '.join(text.partition('=')[0] for text in inferred)}: under privacy=dp_sgd how a device's rows"
                f" are read must not follow from other rows; say it, for example {' '.join(inferred)}"
            )
        from fedapp.privacy.dp_protection import DpSgdProtection

        log.info("DP-SGD with per-example gradients by %s: %s", plan.mode, plan.reason)
        return DpSgdProtection(plan.training, budget)

    def server_accounts(self, config: Config, parts: Parts, num_examples: Mapping[int, int]) -> ServerAccounts:
        return ServerAccounts(self.plan(config, parts, OwnLimits()).budget, num_examples)

    def summary(self, config: Config, parts: Parts) -> dict[str, Any]:
        plan = self.plan(config, parts, OwnLimits())
        return {
            "unit": "one example of one client's data",
            "target_epsilon": self.target_epsilon,
            "accountant": plan.budget.accountant,
            "noise_multiplier": plan.budget.cost.noise_multiplier,
            "sample_rate": plan.budget.cost.sample_rate,
            "steps_per_round": plan.budget.cost.steps,
            "max_grad_norm": self.max_grad_norm,
            "noise_source": self.noise_source,
            "grad_sample_mode": plan.mode,
        }

    @property
    def delta_for_planning(self) -> float:
        return self.delta or LARGEST_DELTA
