"""Comparisons: held-out rows that no run has, whole units, the same work, and data that is what it was."""

from mutants.mutant import Mutant

__all__ = ["MUTANTS"]

ROWS = "tests/compare/test_held_out_rows.py"
INTERVALS = "tests/compare/test_bootstrap.py"
ARMS = "tests/compare/test_arms.py"
DATA = "tests/data/sources/test_experiment_sources.py"
OWN = "tests/client/test_own_models.py"
LIMITS = "tests/client/test_device_limits.py"

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
        "    if run.site.will_train(instruction, storage):",
        "    if not run.site:",
        f"{LIMITS}::test_fine_tuning_is_a_training_like_any_other",
    ),
]
