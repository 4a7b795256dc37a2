"""Comparisons: held-out rows that no run has, whole units, the same work, and data that is what it was."""

from mutants.mutant import Mutant

__all__ = ["MUTANTS"]

ROWS = "tests/compare/test_held_out_rows.py"
INTERVALS = "tests/compare/test_bootstrap.py"
ARMS = "tests/compare/test_arms.py"
DATA = "tests/data/sources/test_experiment_sources.py"
OWN = "tests/client/test_own_models.py"
LIMITS = "tests/client/test_device_limits.py"
FAIR = "tests/aggregation/test_qfedavg.py"
CHOICE = "tests/aggregation/test_selection.py"
COLUMNS = "tests/compare/test_by_columns.py"

MUTANTS = [
    Mutant(
        "fedapp/compare/held_out_rows.py",
        "torch.cat([torch.arange(start, middle) for start, middle, _ in spans])",
        "torch.cat([torch.arange(start, end) for start, _, end in spans])",
        f"{ROWS}::test_no_arm_has_a_row_that_is_held_out",
    ),
    Mutant(
        "fedapp/compare/bootstrap.py",
        "    return times[:, owner]\n",
        "    return times[:, owner[torch.randperm(len(owner))]]\n",
        f"{INTERVALS}::test_units_are_drawn_whole_and_as_many_as_there_are",
    ),
    Mutant(
        "fedapp/compare/bootstrap.py",
        "(len(known) - rank) * value",
        "value",
        f"{INTERVALS}::test_holm",
    ),
    Mutant(
        "fedapp/compare/compared_arms.py",
        "federation.num_rounds * cohort_rule(config).needed(clients) / clients",
        "federation.num_rounds",
        f"{ARMS}::test_a_client_alone_has_as_many_rounds_as_one_of_the_cohorts",
    ),
    Mutant(
        "fedapp/data/package_file.py",
        "    if found != sha256:",
        "    if not found:",
        f"{DATA}::test_a_changed_file_is_refused",
    ),
    Mutant(
        "fedapp/client/own_models.py",
        "model if before is None else before",
        "model",
        f"{OWN}::test_ditto_goes_on_from_its_own_model_held_near_the_global_one",
    ),
    Mutant(
        "fedapp/client/handlers.py",
        "    if (own := run.site.own) is not None and own.will_train(instruction, storage.heads):",
        "    if not run.site:",
        f"{LIMITS}::test_fine_tuning_is_a_training_like_any_other",
    ),
    Mutant(
        "fedapp/learning/metrics/regression.py",
        "        late = weights[:, self.season :]\n",
        "        late = weights[:, : -self.season]\n",
        f"{INTERVALS}::test_a_scaled_error_of_a_draw_is_not_that_of_its_order",
    ),
    Mutant(
        "fedapp/data/sources/stock_prices.py",
        'targets.append((own if self.target == "own" else market)[0][self.window :])',
        'targets.append((own if self.target == "own" else market)[0][self.window - 1 : -1])',
        f"{DATA}::test_a_week_of_shares_is_predicted_from_those_before",
    ),
    Mutant(
        "fedapp/aggregation/qfedavg.py",
        "factor * (1 + self.q * steepness",
        "factor * (1 + steepness",
        f"{FAIR}::test_another_power",
    ),
    Mutant(
        "fedapp/aggregation/qfedavg.py",
        "        if not privacy_of(config).discloses_metrics:\n",
        "        if not config:\n",
        f"{FAIR}::test_what_it_cannot_be_combined_with",
    ),
    Mutant(
        "fedapp/aggregation/selection/power_of_choice.py",
        "(-loss(group), group)",
        "(loss(group), group)",
        f"{CHOICE}::test_the_largest_losses_are_chosen",
    ),
    Mutant(
        "fedapp/client/site.py",
        "            if not self.protection.discloses_metrics:\n                return ClientReport(client)\n"
        "            return ClientReport(client, train_loss",
        "            return ClientReport(client, train_loss",
        f"{CHOICE}::test_no_loss_is_told_where_none_may_leave",
    ),
    Mutant(
        "fedapp/client/handlers.py",
        "    if instruction.candidate and run.protocol.individual_updates:",
        "    if instruction.candidate:",
        f"{CHOICE}::test_no_loss_is_told_where_none_may_leave",
    ),
    Mutant(
        "fedapp/compare/arms_by_columns.py",
        "which = replace(options, source=OneParty(options), fusion=Sum(masked=False))",
        "which = options",
        f"{COLUMNS}::test_each_arm_has_the_columns_that_it_says",
    ),
]
