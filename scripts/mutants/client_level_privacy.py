"""Client-level DP: sensitivity, noise, ledgers, and what a run tells."""

from mutants.mutant import Mutant

__all__ = ["MUTANTS"]

TESTS = "tests/privacy/client_level"
SENSITIVITY, NOISE = f"{TESTS}/test_sensitivity.py", f"{TESTS}/test_noise.py"
CENTRAL, DISTRIBUTED = f"{TESTS}/test_central_run.py", f"{TESTS}/test_distributed_run.py"
PACKAGE = "fedapp/privacy/client_level"

MUTANTS = [
    Mutant(
        f"{PACKAGE}/central_step.py",
        "return within(trained, self._norm(params) - self.room)",
        "return within(trained, self._norm(params) * 1.001)",
        f"{SENSITIVITY}::test_one_client_changes_the_sum_by_the_clipping_norm_at_most",
    ),
    Mutant(
        f"{PACKAGE}/central_step.py",
        "            if not len(scalars):\n                return self._clipped(update, params)\n",
        "            if not len(scalars):\n                return vector\n",
        f"{SENSITIVITY}::test_one_client_changes_the_sum_by_the_clipping_norm_at_most",
    ),
    Mutant(
        "fedapp/aggregation/plain/server.py",
        "            update = self._steps.on_reply(update, template, 1.0, plan)\n",
        "            self._steps.on_reply(update, template, 1.0, plan)\n",
        f"{SENSITIVITY}::test_one_client_changes_the_sum_by_the_clipping_norm_at_most",
    ),
    Mutant(
        f"{PACKAGE}/central_step.py",
        "noise.normal(update.shape, self.noise.multiplier * norm * unit)",
        "noise.normal(update.shape, 0.97 * self.noise.multiplier * norm * unit)",
        f"{NOISE}::test_the_noise_of_a_sum_is_sigma_times_the_norm_on_every_trained_value",
    ),
    Mutant(
        f"{PACKAGE}/skellam_noise.py",
        "return self.variance / self.sums.noise_sources",
        "return self.variance / self.sums.expected",
        f"{NOISE}::test_a_sum_has_at_least_the_noise_that_is_accounted_for",
    ),
    Mutant(
        f"{PACKAGE}/rounding.py",
        "        if int(np.dot(found, found)) <= most:\n            return found\n",
        "        return found\n",
        f"{SENSITIVITY}::test_whole_numbers_are_within_the_bound_that_is_paid_for",
    ),
    Mutant(
        "fedapp/privacy/skellam.py",
        "return gaussian + min(more, 3 * l1 / (2 * variance))",
        "return gaussian",
        f"{TESTS}/test_accounting.py::test_golden_values_of_the_bound",
    ),
    Mutant(
        "fedapp/privacy/sampling.py",
        "make_noise(self.source, server_round)",
        'make_noise("seeded_for_tests", server_round)',
        f"{NOISE}::test_the_cohort_is_a_poisson_sample_from_the_system_s_entropy",
    ),
    Mutant(
        "fedapp/server/strategy.py",
        "            self.budget.pay(run, server_round)\n",
        "            pass\n",
        f"{CENTRAL}::test_every_round_is_in_the_server_s_ledger_and_in_epsilon",
    ),
    Mutant(
        "fedapp/server/population/secret_cohort.py",
        "return self.sampling.unit * self.sampling.expected",
        "return weight or self.sampling.unit",
        f"{CENTRAL}::test_clients_that_are_not_there_add_nothing_and_the_divisor_stays",
    ),
    Mutant(
        "fedapp/aggregation/secaggplus/option.py",
        "noised.least if noised is not None else 0)",
        "0)",
        f"{DISTRIBUTED}::test_a_device_asks_for_as_many_survivors_as_the_noise_is_planned_for",
    ),
    Mutant(
        f"{PACKAGE}/distributed.py",
        "if keys.honest_share > limits.honest_share:",
        "if False:",
        f"{DISTRIBUTED}::test_what_a_device_does_not_accept",
    ),
]
