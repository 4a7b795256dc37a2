"""What leaves for a tracker, the live page and monitoring."""

from mutants.mutant import Mutant

__all__ = ["MUTANTS"]

TOLD = "fedapp/tracking/tracked_run.py"
TESTS = "tests/tracking/test_trackers.py"
PRIVATE = f"{TESTS}::test_under_differential_privacy_clients_show_what_they_spent_alone"
RESUMED = f"{TESTS}::test_a_resumed_run_is_the_same_run_of_mlflow"
LIVE = "tests/launch/live/test_live.py"

MUTANTS = [
    Mutant(TOLD, "OF_PRIVATE_CLIENTS if self._about.private else tuple(row)", "tuple(row)", PRIVATE),
    Mutant(TOLD, "        if not self._about.private:\n", "        if True:\n", PRIVATE),
    Mutant(TOLD, "self._tracker.open(self._about, self._identity)", "self._tracker.open(self._about, None)", RESUMED),
    Mutant(
        "fedapp/launch/live/new_lines.py",
        "if file.read(len(self._tail)) != self._tail:",
        "if False:",
        f"{LIVE}::test_a_resumed_run_counts_no_round_twice",
    ),
    Mutant(
        "fedapp/launch/live/live_server.py",
        'allowed_hosts=["127.0.0.1", "localhost"]',
        'allowed_hosts=["*"]',
        f"{LIVE}::test_it_is_read_only_and_for_this_machine",
    ),
    Mutant(
        "fedapp/deploy/metrics_server.py",
        'not in ("127.0.0.1", "localhost")',
        'not in ("127.0.0.1", "localhost", "attacker.example")',
        "tests/deploy/test_status.py::test_metrics_are_served_on_loopback",
    ),
    Mutant(
        "fedapp/deploy/prometheus_text.py",
        r'.replace("\n", "\\n")',
        "",
        "tests/deploy/test_status.py::test_the_text_is_prometheus",
    ),
    Mutant(
        "fedapp/launch/simulate.py",
        "        if not config.run.live:\n",
        "        import uvicorn\n\n        if not config.run.live:\n",
        "tests/test_imports.py::test_a_plain_run_imports_nothing_that_was_not_asked_for",
    ),
    Mutant(
        "fedapp/server/pruning.py",
        "over and _judges(trial.config) == _judges(own.config)",
        "over",
        "tests/server/test_pruning.py::test_only_comparable_trials_count",
    ),
    Mutant(
        "fedapp/launch/live/live_script.py",
        "node.textContent = text; return node;",
        "node.innerHTML = text; return node;",
        f"{LIVE}::test_nothing_becomes_markup",
    ),
    Mutant(
        "fedapp/launch/objective.py",
        "    if any(one != direction for one in given):\n",
        "    if False:\n",
        "tests/launch/test_objective.py::test_a_sweeper_without_or_against_the_objective_is_refused",
    ),
]
