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
        "clipped = within(self._only_trained(update), self._norm(params) - self.room)",
        "clipped = within(self._only_trained(update), self._norm(params) * 1.001)",
        f"{SENSITIVITY}::test_one_client_changes_the_sum_by_the_clipping_norm_at_most",
    ),
    Mutant(
        f"{PACKAGE}/central_step.py",
        "                return vector if clipped is update else clipped\n",
        "                return vector\n",
        f"{SENSITIVITY}::test_one_client_changes_the_sum_by_the_clipping_norm_at_most",
    ),
    Mutant(
        f"{PACKAGE}/central_step.py",
        "in_place or torch.count_nonzero(update[run])]",
        "in_place]",
        f"{SENSITIVITY}::test_one_client_changes_the_sum_by_the_clipping_norm_at_most",
    ),
    Mutant(
        f"{PACKAGE}/skellam_noise.py",
        "rotated.mul_(bound / norm)",
        "pass",
        f"{SENSITIVITY}::test_whole_numbers_are_within_the_bound_that_is_paid_for",
    ),
    Mutant(
        "fedapp/aggregation/plain/server.py",
        "            update = self._steps.on_reply(update, template, 1.0, plan)\n",
        "            self._steps.on_reply(update, template, 1.0, plan)\n",
        f"{SENSITIVITY}::test_one_client_changes_the_sum_by_the_clipping_norm_at_most",
    ),
    Mutant(
        f"{PACKAGE}/central_step.py",
        "noise.added(update, self.noise.multiplier * norm * unit)",
        "noise.added(update, 0.97 * self.noise.multiplier * norm * unit)",
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
    Mutant(
        "fedapp/privacy/noise.py",
        ".add_(values, alpha=1 / spacing).round_().mul_(spacing)",
        ".add_(values, alpha=1 / spacing).mul_(spacing)",
        f"{NOISE}::test_a_noised_sum_lies_on_a_grid_whatever_it_was",
    ),
    Mutant(
        f"{PACKAGE}/norm.py",
        "factor = largest * (1 - max(ROUNDED, torch.finfo(dtype).eps) - error) / norm",
        "factor = largest * (1 + ROUNDED) / norm",
        f"{SENSITIVITY}::test_a_long_vector_is_never_too_long_either",
    ),
    Mutant(
        f"{PACKAGE}/metric_sums.py",
        "return torch.cat([share, torch.minimum(torch.maximum(values[1:], -share / 2), share / 2)])",
        "return torch.cat([share, values[1:]])",
        f"{SENSITIVITY}::test_one_client_changes_the_metrics_sums_by_their_sensitivity_at_most",
    ),
    Mutant(
        f"{PACKAGE}/metric_sums.py",
        "share = values[:1].clamp(0.0, 1.0)",
        "share = values[:1].clamp(min=0.0)",
        f"{SENSITIVITY}::test_one_client_changes_the_metrics_sums_by_their_sensitivity_at_most",
    ),
    Mutant(
        f"{PACKAGE}/metric_sums.py",
        "return math.sqrt(1 + len(self.ranges) / 4)",
        "return 1.0",
        f"{SENSITIVITY}::test_a_client_s_metrics_are_within_their_sensitivity",
    ),
    Mutant(
        f"{PACKAGE}/metric_sums.py",
        "bool((rest <= share / 2 + slack).all())",
        "True",
        f"{SENSITIVITY}::test_sums_of_metrics_of_virtual_clients_are_checked",
    ),
    Mutant(
        f"{PACKAGE}/central_step.py",
        "noise.added(scalars[self._bits :] / unit, metrics.deviation)",
        "noise.added(scalars[self._bits :] / unit, metrics.multiplier)",
        f"{NOISE}::test_sums_of_metrics_have_the_noise_that_is_accounted_for",
    ),
    Mutant(
        f"{PACKAGE}/planned_noise.py",
        "        left -= metrics.multiplier**-2\n",
        "",
        f"{CENTRAL}::test_metrics_are_paid_for_by_a_share_of_the_budget",
    ),
    Mutant(
        f"{PACKAGE}/client_dp.py",
        "if train.val_fraction and not sums_metrics:",
        "if False:",
        f"{CENTRAL}::test_what_would_leave_a_client_uncovered_is_refused[train.val_fraction=0.1-train.val_fraction=0.1]",
    ),
    Mutant(
        "fedapp/privacy/server_budget.py",
        "if not spent and self.lasts and not self.begins:",
        "if False:",
        f"{CENTRAL}::test_a_lasting_ledger_is_begun_on_request_alone",
    ),
    Mutant(
        "fedapp/privacy/server_budget.py",
        '            self.ledger.check_head(head or "", "the run\'s checkpoint")\n',
        "",
        f"{CENTRAL}::test_a_resumed_run_knows_what_was_in_its_ledger",
    ),
    Mutant(
        "fedapp/server/ledger_place.py",
        'FileLedger(path, second_head=heads / f"{place}.head", heads_folder=heads)',
        "FileLedger(path, heads_folder=heads)",
        f"{CENTRAL}::test_a_lost_or_older_ledger_is_refused",
    ),
    Mutant(
        "fedapp/server/ledger_place.py",
        'FileLedger(path, second_head=heads / f"{place}.head", heads_folder=heads)',
        'FileLedger(path, second_head=heads / f"{place}.head")',
        f"{CENTRAL}::test_a_lost_or_older_ledger_is_refused[copied--there were 2 lines]",
    ),
    Mutant(
        "fedapp/privacy/ledger.py",
        "        for head, content in heads:\n",
        "        for head, content in ((head, _text(head)) for head, _ in heads):\n",
        "tests/privacy/test_ledger.py::test_who_reads_while_another_writes_finds_no_damage",
    ),
    Mutant(
        "fedapp/privacy/server_budget.py",
        "                self.ledger.check()\n",
        "                pass\n",
        f"{CENTRAL}::test_heads_that_cannot_be_written_are_noticed_before_a_round",
    ),
    Mutant(
        "fedapp/privacy/server_budget.py",
        "if spent and self.begins and head is None:",
        "if False:",
        f"{CENTRAL}::test_a_ledger_that_is_there_is_not_begun",
    ),
    Mutant(
        "fedapp/server/run.py",
        "        and keeps_nothing(checked),\n        alone=alone,\n",
        "        and keeps_nothing(checked),\n",
        f"{CENTRAL}::test_a_supernode_that_comes_back_as_another_client_is_left_out",
    ),
    Mutant(
        f"{PACKAGE}/metric_sums.py",
        "slack = 1.5 * rounding",
        "slack = 1e-9",
        f"{SENSITIVITY}::test_the_slack_of_metrics_sums_is_that_of_fixed_point",
    ),
    Mutant(
        f"{PACKAGE}/central.py",
        "        check_float32(parts)\n",
        "",
        f"{CENTRAL}::test_a_model_of_other_values_is_refused_by_name",
    ),
    Mutant(
        f"{PACKAGE}/norm.py",
        "(1 - max(ROUNDED, torch.finfo(dtype).eps) - error)",
        "(1 - ROUNDED - error)",
        f"{SENSITIVITY}::test_updates_of_half_precision_are_shortened_and_not_lost",
    ),
    Mutant(
        "fedapp/server/strategy.py",
        "        if self.budget is not None:\n            self.budget.pay(run, server_round)\n",
        "        if self.budget is not None and server_round != 2:\n            self.budget.pay(run, server_round)\n",
        f"{TESTS}/test_killed.py::test_the_ledger_never_shows_less_than_was_spent[after the noise]",
    ),
    Mutant(
        "fedapp/privacy/gaussian.py",
        "low, high = (low, middle) if lost(middle) <= delta else (middle, high)",
        "low, high = (low, middle) if lost(middle) <= 2 * delta else (middle, high)",
        f"{TESTS}/test_accounting.py::test_without_sampling_epsilon_is_the_least_that_holds",
    ),
]
