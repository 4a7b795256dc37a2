"""What a device's operator allows, and what is stored there."""

from mutants.mutant import Mutant

__all__ = ["MUTANTS"]

LIMITS = "tests/client/test_device_limits.py"
REFUSED = f"{LIMITS}::test_a_run_that_takes_more_is_refused_in_the_preflight"
OTHER = f"{LIMITS}::test_other_limits_are_refused"
EVICTED = f"{LIMITS}::test_invented_names_evict_nothing_that_was_trained"
FILLED = f"{LIMITS}::test_of_the_disk_no_more_is_filled_than_allowed"
FOLDERS = "fedapp/client/run_folders.py"

MUTANTS = [
    Mutant(
        "fedapp/client/own_work.py",
        "min(asked, allowed_cores()) if on_device else asked",
        "asked",
        f"{LIMITS}::test_a_server_gets_no_more_threads_than_a_device_has_cores",
    ),
    Mutant(
        "fedapp/privacy/plan.py",
        "if limits.max_steps is not None and steps > limits.max_steps:",
        "if False:",
        REFUSED,
    ),
    Mutant(
        "fedapp/learning/training.py",
        "if self.max_steps is not None and steps > self.max_steps:",
        "if self.max_steps is not None and steps > self.max_steps + 1:",
        f"{LIMITS}::test_steps_are_counted_as_they_are_done",
    ),
    Mutant(
        "fedapp/client/site_preflight.py",
        "            site.protection.check_work(len(train))\n",
        "",
        REFUSED,
    ),
    Mutant("fedapp/privacy/limits.py", 'max_steps=whole_limit(node_config, "max-steps", 1)', "max_steps=None", REFUSED),
    Mutant(
        "fedapp/privacy/limits.py",
        'max_model_mb=whole_limit(node_config, "max-model-mb", 1)',
        "max_model_mb=None",
        REFUSED,
    ),
    Mutant("fedapp/privacy/limits.py", "if number != int(number) or number < least:", "if number < least:", OTHER),
    Mutant(
        "fedapp/privacy/limits.py",
        'if 0 < (found := float(given)) < float("inf"):',
        "if 0 < (found := float(given)):",
        OTHER,
    ),
    Mutant("fedapp/client/handlers.py", "        check_disk(context, run.config, run.site)\n", "", REFUSED),
    Mutant(FOLDERS, "if self.max_bytes is not None and needed > self.max_bytes:", "if False:", REFUSED),
    Mutant(FOLDERS, "and (trained or not self.has_trained(path.name))", "and True", EVICTED),
    Mutant(
        FOLDERS,
        "key=lambda path: (self.has_trained(path.name), path.stat().st_mtime_ns)",
        "key=lambda path: path.stat().st_mtime_ns",
        f"{LIMITS}::test_invented_names_go_first_and_then_the_oldest",
    ),
    Mutant(
        FOLDERS,
        """            raise ConfigError("node-config max-disk-mb: leaves no room for what this run stores")""",
        "            pass",
        FILLED,
    ),
    Mutant(
        "fedapp/client/storage.py",
        "feature_bytes = min(feature_bytes, most << 19)",
        "feature_bytes = min(feature_bytes, most << 20)",
        f"{LIMITS}::test_features_and_runs_share_what_is_allowed",
    ),
]
