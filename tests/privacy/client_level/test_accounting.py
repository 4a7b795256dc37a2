"""Epsilon of client-level DP against closed forms, Opacus, exact divergences and published values."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant, RDPAccountant
from scipy.optimize import minimize_scalar
from scipy.stats import skellam as exact

from fedapp.common.errors import ConfigError
from fedapp.privacy.accounting import SkellamSpending, Spending, calibrate, calibrate_skellam, epsilon
from fedapp.privacy.gaussian import epsilon_of_gaussian
from fedapp.privacy.ledger import Entry, FileLedger
from fedapp.privacy.skellam import ORDERS, epsilon_from_rdp, rdp

# --- central ------------------------------------------------------------------------------------------------------


def test_central_rounds_cost_what_opacus_says_at_once() -> None:
    """Fed with all rounds at once, by both accountants."""
    rounds = [Spending(1.0, 0.1, 1)] * 60
    for name, made in (("rdp", RDPAccountant()), ("prv", PRVAccountant())):
        made.history = [(1.0, 0.1, 60)]
        assert epsilon(rounds, 1e-5, name) == pytest.approx(made.get_epsilon(1e-5), abs=0.02)
    assert epsilon(rounds, 1e-5, "prv") < epsilon(rounds, 1e-5, "rdp") < epsilon([Spending(1.0, 1.0, 60)], 1e-5, "rdp")


def test_without_sampling_it_is_the_gaussian_mechanism_s_closed_form() -> None:
    """RDP of order a is a / (2 sigma^2) a round (Mironov 2017); the exact epsilon by Balle and Wang (2018)."""
    from scipy.stats import norm

    rounds, sigma, delta = 25, 5.0, 1e-5
    spread = math.sqrt(rounds) / sigma
    found = epsilon([Spending(sigma, 1.0, 1)] * rounds, delta, "prv")
    exactly = norm.cdf(spread / 2 - found / spread) - math.exp(found) * norm.cdf(-spread / 2 - found / spread)
    assert exactly <= delta
    assert epsilon([Spending(sigma, 1.0, rounds)], delta, "rdp") == pytest.approx(
        min(o * spread**2 / 2 + math.log1p(-1 / o) - math.log(delta * o) / (o - 1) for o in np.arange(1.1, 64, 0.1)),
        rel=1e-3,
    )


@pytest.mark.parametrize("spread", [0.05, 0.4, 1.0, 5.0])
@pytest.mark.parametrize("delta", [1e-5, 1e-9])
def test_without_sampling_epsilon_is_the_least_that_holds(spread: float, delta: float) -> None:
    """Balle and Wang (2018), theorem 8: no smaller one would do."""
    from scipy.stats import norm

    def lost(found: float) -> float:
        return float(norm.cdf(spread / 2 - found / spread) - math.exp(found) * norm.cdf(-spread / 2 - found / spread))

    found = epsilon_of_gaussian(spread, delta)
    assert lost(found) <= delta * (1 + 1e-9)
    assert found == 0 or lost(found - 1e-4) > delta
    rounds = [Spending(2 / spread, 1.0, 1), Spending(2 / spread, 1.0, 3)]
    assert epsilon(rounds, delta, "prv") == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize(
    ("noise", "rate", "rounds", "delta", "published"),
    [
        (1.0, 0.01, 1500, 1e-6, 2.568),  # Google's PLD accountant, as dp-accounting 0.4 gives it
        (1.0, 1000 / 763_430, 4120, 1e-9, 1.152),  # McMahan et al. 2018, table 1: language models, by moments
    ],
)
def test_published_values(noise: float, rate: float, rounds: int, delta: float, published: float) -> None:
    """Never above a published bound by more than its rounding; those by looser accountants lie higher."""
    found = epsilon([Spending(noise, rate, rounds)], delta, "prv")
    assert published / 2 < found <= published * 1.01


# --- Skellam ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "l1", "l2", "variance", "golden"),
    [
        # Worked out by hand from corollary 4.1, with a scale of one.
        (2, 1.0, 1.0, 10.0, 0.1 + min((3 + 6) / 400, 3 / 20)),  # 0.1225
        (4, 20.0, 10.0, 1000.0, 0.2 + min((700 + 120) / 4e6, 60 / 2000)),  # 0.200205
        (32, 300.0, 20.0, 40.0, 160.0 + min((25_200 + 1800) / 6400, 900 / 80)),  # 164.21875
        (512, 9.0, 3.0, 5.0, 460.8 + min((9207 + 54) / 100, 27 / 10)),  # 463.5: the second term
    ],
)
def test_golden_values_of_the_bound(order: int, l1: float, l2: float, variance: float, golden: float) -> None:
    assert rdp(order, l1=l1, l2=l2, variance=variance) == pytest.approx(golden, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.floats(0.5, 60), st.integers(2, 6))
def test_the_bound_holds_for_the_exact_divergence(shift: int, variance: float, order: int) -> None:
    """Of one entry, summed over all whole numbers that matter."""
    reach = int(12 * math.sqrt(variance) + order * shift + 60)
    points = np.arange(-reach, reach + 1)
    with np.errstate(divide="ignore"):
        here = exact.logpmf(points - shift, variance / 2, variance / 2)
        there = exact.logpmf(points, variance / 2, variance / 2)
    known = np.isfinite(here) & np.isfinite(there)
    found = np.logaddexp.reduce(order * here[known] + (1 - order) * there[known]) / (order - 1)
    assert found <= rdp(order, l1=shift, l2=shift, variance=variance) * (1 + 1e-6) + 1e-9


def test_large_variances_cost_what_gaussian_noise_costs() -> None:
    for order in (2, 17, 256):
        skellam = rdp(order, l1=1e6, l2=1e3, variance=1e12)
        assert skellam == pytest.approx(order * 1e6 / 2e12, rel=1e-3)
        assert skellam > order * 1e6 / 2e12


def test_only_whole_orders_are_bounded() -> None:
    for order in (1, 1.5, 2.5):
        with pytest.raises(ValueError, match="whole orders above 1"):
            rdp(order, l1=1.0, l2=1.0, variance=1.0)  # type: ignore[arg-type]
    assert all(order == int(order) and order >= 2 for order in ORDERS)


def test_from_rdp_to_epsilon_is_the_best_order() -> None:
    """Against a search over all orders of a Gaussian's curve."""
    rho, delta = 0.05, 1e-6

    def cost(order: float) -> float:
        return order * rho + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)

    best = minimize_scalar(cost, bounds=(1.01, 500), method="bounded").fun
    assert epsilon_from_rdp([(order, order * rho) for order in ORDERS], delta) == pytest.approx(best, rel=1e-3)
    assert epsilon_from_rdp([(order, math.inf) for order in ORDERS], delta) == math.inf
    assert epsilon_from_rdp([(order, 0.0) for order in ORDERS], 0.5) >= 0


def spending(sigma: float, rounds: int = 1) -> SkellamSpending:
    return SkellamSpending((sigma * 200.0) ** 2, 200.0, 200.0 * 32, rounds)


def test_rounds_compose_whatever_their_order_and_mixture() -> None:
    both = [spending(2.0), spending(3.0), spending(2.0)]
    merged = [spending(3.0), spending(2.0, 2)]
    assert epsilon(both, 1e-5, "rdp") == pytest.approx(epsilon(merged, 1e-5, "prv"))
    assert epsilon([*both, Spending(4.0, 1.0, 3)], 1e-5, "rdp") > epsilon(both, 1e-5, "rdp")
    assert epsilon([*both, Spending(0.0, 1.0, 1)], 1e-5, "rdp") == math.inf
    assert epsilon([spending(2.0).voided()], 1e-5, "rdp") == math.inf
    gaussian = epsilon([Spending(2.0, 1.0, 10)], 1e-5, "rdp")
    assert gaussian <= epsilon([spending(2.0, 10)], 1e-5, "rdp") <= gaussian * 1.01


@pytest.mark.parametrize("target", [0.5, 2.0, 8.0])
def test_calibration_keeps_to_its_target(target: float) -> None:
    sigma = calibrate_skellam(target, 1e-6, 30, spending)
    assert target - 0.011 <= epsilon([spending(sigma, 30)], 1e-6, "rdp") <= target
    assert sigma >= calibrate(target, 1e-6, 1.0, 30, "rdp") * 0.99


def test_what_no_noise_can_do_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"privacy.target_epsilon=0.001: no noise keeps 1000000 sums"):
        calibrate_skellam(1e-3, 1e-6, 10**6, spending)


def test_a_ledger_holds_both_kinds(tmp_path: Path) -> None:
    ledger = FileLedger(tmp_path / "ledger")
    written = [Entry("a", 1, spending(2.0)), Entry("a", 2, Spending(1.0, 0.5, 3)), Entry("b", 1, spending(3.0))]
    for entry in written:
        ledger.append(entry)
    assert FileLedger(tmp_path / "ledger").entries() == written
