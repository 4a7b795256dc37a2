"""What a preflight report may decide."""

from mutants.mutant import Mutant

__all__ = ["MUTANTS"]

JOINING = "fedapp/server/population/joining.py"
PREFLIGHT = "fedapp/server/population/preflight.py"
WIRE = "fedapp/wire/preflight.py"
TESTS = "tests/server/population/test_preflight.py"
CLAIMS = f"{TESTS}::test_nobody_is_more_clients_than_its_own"
MANY = f"{TESTS}::test_one_that_claims_many_partitions_is_not_waited_for"
IMPOSSIBLE = f"{TESTS}::test_an_impossible_preflight_report_costs_its_supernode_alone"
MADE_UP = "tests/server/population/test_moments.py::test_made_up_moments_move_the_scale_within_bounds"
COUNTS = "tests/server/population/test_count_bound.py"

SHARES = "tests/server/population/test_moments.py::test_counts_by_class_that_no_examples_have_are_refused"
MOMENTS_FILE = "fedapp/server/population/moments.py"
JUDGED = "fedapp/server/outcome.py"

MUTANTS = [
    Mutant(MOMENTS_FILE, "(count[:, part] == totals) & (ones", "(ones", SHARES),
    Mutant(
        MOMENTS_FILE,
        "        sound &= mean[:, part] == ones / totals.clamp(min=1)",
        "        sound &= totals > 0",
        SHARES,
    ),
    Mutant(MOMENTS_FILE, " and (ones.sum(1, keepdim=True) == totals).all()", "", SHARES),
    Mutant(
        MOMENTS_FILE,
        "    count, squares = count * share, squares * share\n",
        "",
        "tests/server/population/test_moments.py::test_one_report_moves_class_weights_by_its_weight_and_no_more",
    ),
    Mutant(
        JUDGED,
        "    if middle <= 0 or math.isinf(times):\n",
        "    if True:\n",
        "tests/server/test_strategy.py::test_no_sites_loss_decides_alone",
    ),
    Mutant(
        JOINING, "if report.code != code_digest():", "if False:", f"{TESTS}::test_other_code_costs_its_supernode_alone"
    ),
    Mutant(JOINING, "    _check_claim(report, partitions, rules.num_clients)\n", "", CLAIMS),
    Mutant(JOINING, "if report.num_partitions != partitions:", "if False:", CLAIMS),
    Mutant(
        JOINING,
        "if len(set(report.clients)) < len(report.clients):",
        "if False:",
        f"{TESTS}::test_a_supernode_that_names_a_client_twice_is_left_out",
    ),
    Mutant(JOINING, "if len(report.clients) > 1:", "if False:", f"{TESTS}::test_a_device_is_one_client"),
    Mutant(JOINING, "if not set(report.clients) <= set(range(rest, num_clients, partitions)):", "if False:", CLAIMS),
    Mutant(
        JOINING,
        "key=lambda number: (-said[number], number)",
        "key=lambda number: -number",
        MANY,
    ),
    Mutant(
        JOINING,
        """if rules.features and report.moments and report.moments["count"].shape[1] != rules.features:""",
        "if False:",
        f"{TESTS}::test_moments_of_another_form_cost_their_supernode_alone",
    ),
    Mutant(
        PREFLIGHT,
        "declared = min(partitions_of(reports), rules.num_clients)",
        "declared = partitions_of(reports)",
        f"{TESTS}::test_all_that_claim_many_partitions_are_not_waited_for_either",
    ),
    Mutant(
        PREFLIGHT,
        "elif client not in twice:",
        "else:",
        f"{TESTS}::test_a_client_that_two_devices_claim_is_neither",
    ),
    Mutant(
        PREFLIGHT,
        "if report.moments and rules.features:",
        "if report.moments:",
        f"{TESTS}::test_moments_that_nobody_asked_for_change_no_scale",
    ),
    Mutant(
        PREFLIGHT,
        "bound = count_bound(rules.weight_bound,",
        "bound = count_bound(None,",
        f"{COUNTS}::test_metrics_and_weights_count_the_same",
    ),
    Mutant(
        "fedapp/server/population/count_bound.py",
        "return min(num_examples, self.most)",
        "return num_examples",
        f"{COUNTS}::test_no_weight_depends_on_what_another_client_claims",
    ),
    Mutant("fedapp/server/population/moments.py", "mean = mean.clamp(low, high)", "mean = mean.clone()", MADE_UP),
    Mutant(
        "fedapp/server/population/moments.py",
        "squares = torch.where(deviations > farthest, farthest.square() * count, squares)",
        "squares = squares.clone()",
        MADE_UP,
    ),
    Mutant(
        "fedapp/server/population/moments.py",
        "count, squares = count * share, squares * share",
        "count, squares = count * 1, squares * 1",
        MADE_UP,
    ),
    Mutant(WIRE, "or (number > most).any()", "", IMPOSSIBLE),
    Mutant(WIRE, "if not torch.isfinite(values).all() or (number < 0).any()", "if (number < 0).any()", IMPOSSIBLE),
    Mutant(
        WIRE,
        "too_large = (mean.abs() > LARGEST_INPUT) | (squares > number * (2 * LARGEST_INPUT) ** 2)",
        "too_large = squares > number * (2 * LARGEST_INPUT) ** 2",
        IMPOSSIBLE,
    ),
    Mutant(WIRE, "or (squares < 0).any()", "", IMPOSSIBLE),
    Mutant(WIRE, "if (too_large | of_few).any():", "if too_large.any():", IMPOSSIBLE),
]
