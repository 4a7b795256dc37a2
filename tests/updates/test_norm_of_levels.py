"""strategy.max_update_norm where the server sees a sum of levels alone: honest cohorts pass, longer sums do not, and it
is refused where rounding would hide them."""

import math

import pytest
import torch

from fedapp.common.errors import ConfigError
from fedapp.config import compose
from fedapp.server.check_config import check_config
from fedapp.updates.norm_limit import NormLimit
from fedapp.updates.step import UpdateRejected
from fedapp.updates.steps import UpdateSteps
from fedapp.updates.summed_levels import SummedLevels

LIMIT, CLIENTS, LENGTH = 2.0, 10, 3000


def steps(bits: int) -> UpdateSteps:
    """As in a run: no norm is planned above the limit."""
    return UpdateSteps((NormLimit(LIMIT, scales=True), SummedLevels(bits, LIMIT, largest_norm=LIMIT)))


def summed(bits: int, norm: float, seed: int, *, honest: bool = True, weights: tuple[float, ...] = (1.0,)) -> float:
    """The norm of the mean of the cohort's updates, all in one direction and of one norm, as the server decodes it.
    Clients that are not honest do not scale theirs down."""
    made = steps(bits)
    direction = torch.randn(LENGTH, generator=torch.Generator().manual_seed(seed))
    template = {"w": direction * (norm / float(direction.norm()))}
    full = made.template(template)
    shares = [weights[client % len(weights)] for client in range(CLIENTS)]
    shares = [share * CLIENTS / sum(shares) for share in shares]
    plan = made.plan(1, shares)
    sending = made if honest else UpdateSteps(made.steps[1:])
    total = {name: torch.zeros(value.shape, dtype=torch.float64) for name, value in full.items()}
    for client, share in enumerate(shares):
        sent = sending.on_client(template, template, share, plan, {}, 1000 * seed + client)
        total = {name: value + sent[name].double() for name, value in total.items()}
    found = made.on_total(total, sum(shares), range(CLIENTS), plan, CLIENTS * math.sqrt(LENGTH))
    return float(found["w"].norm()) / sum(shares)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("weights", [(1.0,), (1.0, 3.0, 0.2)])
def test_honest_cohorts_pass_also_where_all_updates_are_as_long_as_may_be(
    bits: int, weights: tuple[float, ...]
) -> None:
    for seed in range(40):
        assert summed(bits, 5 * LIMIT, seed, weights=weights) < 1.1 * LIMIT


@pytest.mark.parametrize(("bits", "longer"), [(8, 1.01), (4, 1.13)])
def test_a_longer_sum_is_rejected(bits: int, longer: float) -> None:
    """By so little that the bound says something: of ten clients, 1 % at 8 bits and 13 % at 4."""
    with pytest.raises(UpdateRejected, match=r"the mean update's norm .* is above 2"):
        summed(bits, longer * LIMIT, 0, honest=False)


@pytest.mark.parametrize("bits", [8, 4])
def test_what_rounding_does_stays_below_what_is_allowed_for_it(bits: int) -> None:
    """The bound is above the largest of 40 roundings, and not far above: below twice the mean one."""
    step = SummedLevels(bits, LIMIT, largest_norm=LIMIT)
    length = LENGTH + len(step.scalars)
    params = {**step.plan(1), **step.plan_weights(1.0), "length": length}
    allowed, found = step.rounding(math.inf, CLIENTS, params), []
    for seed in range(40):
        vector = torch.randn(LENGTH, generator=torch.Generator().manual_seed(seed))
        vector *= LIMIT / 2 / float(vector.norm())  # so that nothing lies beyond the range
        full = torch.cat([vector, torch.zeros(len(step.scalars))])
        sent = [step.seeded(1000 * seed + client).on_client(full, 1.0, params, {}) for client in range(CLIENTS)]
        total = step.on_total(torch.stack(sent).double().sum(0), CLIENTS, range(CLIENTS), params, math.inf)
        found.append(float((total[:LENGTH] - CLIENTS * vector.double()).norm()))
    assert max(found) < allowed < 2 * sum(found) / len(found)


SECRET = "secure_aggregation=secaggplus federation.final_evaluation=false strategy.max_update_norm=2"


@pytest.mark.parametrize("protocol", ["secaggplus", "helper"])
@pytest.mark.parametrize("bits", [8, 4, 2, 1])
def test_few_bits_are_refused_by_name_beside_a_limit_on_sums(protocol: str, bits: int) -> None:
    given = [*SECRET.replace("secaggplus", protocol).split(), "compression=quantise", f"compression.bits={bits}"]
    given.append("compression.first_norm=5")
    if bits >= 4:
        made = check_config(compose(given)).steps
        assert [type(step).__name__ for step in made.steps] == ["NormLimit", "SummedLevels"]
        assert made.plan(1)["quantise"]["norm"] == 2  # no honest client's is larger
        return
    with pytest.raises(ConfigError, match=f"compression.bits={bits}: .*strategy.max_update_norm=2"):
        check_config(compose(given))


def test_single_updates_are_limited_at_any_bits() -> None:
    """There each is turned back before its norm is looked at."""
    given = ["compression=quantise", "compression.bits=1", "strategy.max_update_norm=2"]
    assert [type(step).__name__ for step in check_config(compose(given)).steps.steps] == ["NormLimit", "OwnLevels"]


CODECS = [*(f"compression=quantise compression.bits={bits}" for bits in (8, 4, 2, 1)), "compression=drive"]
CODECS.append("compression=top_k compression.error_feedback=false compression.share=1")


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("norm", [0.5, 0.99, 1.0])
def test_rounding_rejects_no_honest_update_and_lets_no_longer_one_in(codec: str, norm: float) -> None:
    """What decodes is longer than what was sent, with one bit by far."""
    steps = check_config(compose([*codec.split(), "strategy.max_update_norm=1"])).steps
    update = torch.randn(3000, generator=torch.Generator().manual_seed(1))
    update *= norm * (1 - 1e-6) / update.norm()
    template, plan = {"w": torch.zeros(3000)}, steps.plan(1)
    sent = steps.on_client({"w": update}, template, 1.0, plan, {}, seed=5)
    found = steps.on_reply(sent, template, 1.0, plan)["w"]
    assert float(found.double().norm()) <= 1
    assert float(found @ update / found.norm() / update.norm()) > 0.2


@pytest.mark.parametrize("codec", CODECS[:5])
def test_a_hostile_update_behind_a_codec_counts_as_the_limit(codec: str) -> None:
    """A client that leaves the limit out sends a hundred times as much."""
    steps = check_config(compose([*codec.split(), "strategy.max_update_norm=1"])).steps
    free = UpdateSteps(steps.steps[1:])
    update = torch.randn(3000, generator=torch.Generator().manual_seed(1))
    update *= 100 / update.norm()
    template, plan = {"w": torch.zeros(3000)}, steps.plan(1)
    with pytest.raises(UpdateRejected, match="update norm 100 above 1"):
        steps.on_client({"w": update}, template, 1.0, plan, {}, seed=5)
    sent = free.on_client({"w": update}, template, 1.0, plan, {}, seed=5)
    assert float(steps.on_reply(sent, template, 1.0, plan)["w"].double().norm()) == pytest.approx(1, rel=1e-5)
