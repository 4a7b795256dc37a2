"""Sums through a helper: what tags bind, whose count, once for a model, and nothing but the sum of the tagged."""

from mutants.mutant import Mutant

__all__ = ["MUTANTS"]

PARTS, TESTS = "fedapp/aggregation/helper", "tests/aggregation/helper"
SITE, RUNS, ENCRYPTED = (f"{TESTS}/test_{name}.py" for name in ("helper_site", "helper_run", "encrypted_sums"))
LIMITS = "tests/client/test_device_limits.py"

MUTANTS = [
    Mutant(
        f"{PARTS}/released.py",
        "    _refuse({client for line in lines",
        "    len({client for line in lines",
        f"{SITE}::test_each_client_is_in_one_sum_of_a_model_whatever_run_and_round_are_called",
    ),
    Mutant(
        f"{PARTS}/helper_site.py",
        "least = max(self.min_cohort, *(tag.min_cohort for tag in tags)) if tags else self.min_cohort",
        "least = self.min_cohort",
        f"{SITE}::test_the_largest_min_cohort_counts",
    ),
    Mutant(
        f"{PARTS}/helper_site.py",
        "if worth < (smallest := least_size(least)):",
        "if worth < (smallest := 0):",
        f"{SITE}::test_weights_cannot_leave_all_but_one_out_of_the_sum",
    ),
    Mutant(
        f"{PARTS}/helper_site.py",
        "fault_of(tag, bound, peers=self.peers, signed=self.identity is not None)",
        "fault_of(tag, bound)",
        f"{SITE}::test_a_site_cannot_speak_for_another",
    ),
    Mutant(
        f"{PARTS}/helper_site.py",
        "if bound.config != self.config_sha256:",
        "if False:",
        f"{SITE}::test_tags_for_other_keys_or_another_config_are_refused",
    ),
    Mutant(
        f"{PARTS}/helper_site.py",
        "        if twice:\n",
        "        if False:\n",
        f"{SITE}::test_one_client_twice_is_refused",
    ),
    Mutant(
        f"{PARTS}/tags.py",
        'return derived(secret, "fedapp helper seed 1", once, *told)',
        'return derived(secret, "fedapp helper seed 1", once)',
        f"{SITE}::test_a_seed_beside_another_tag_is_not_opened",
    ),
    Mutant(
        f"{PARTS}/run_keys.py",
        "return run, config, keys.key, hashlib.sha256(keys.public).digest()",
        "return run, config, keys.key, b''",
        f"{SITE}::test_clients_take_the_keys_of_the_helper_that_they_have_pinned_and_no_others",
    ),
    Mutant(
        f"{PARTS}/sealed_model.py",
        ") < newest:\n",
        ") < 0:\n",
        f"{RUNS}::test_an_older_model_is_refused_by_clients",
    ),
    Mutant(
        f"{PARTS}/through_helper.py",
        "if limits.of_device and pinned is None:",
        "if False:",
        f"{RUNS}::test_a_device_refuses_without_a_pinned_helper_and_a_helper_without_peers",
    ),
    Mutant(
        "fedapp/aggregation/encrypted/encrypted_integers.py",
        "if values[length:].any() or max(-int(values.min()), int(values.max())) > largest:",
        "if False:",
        f"{ENCRYPTED}::test_nothing_but_the_sum_of_the_tagged_is_decrypted",
    ),
    Mutant(
        "fedapp/aggregation/paillier/paillier_scheme.py",
        "value % modulus in (0, 1)",
        "value % modulus == 0",
        f"{ENCRYPTED}::test_an_encryption_that_anybody_reads_is_refused_under_paillier",
    ),
    Mutant(
        "fedapp/aggregation/bfv/parameters.py",
        "(self.degree + 1) / 2 + 0.5",
        "0.5",
        f"{ENCRYPTED}::test_parameters_are_those_of_the_standard",
    ),
    Mutant(
        "fedapp/privacy/limits.py",
        "if self.helper is not None and not helper_sites:",
        "if False:",
        f"{LIMITS}::test_who_pins_a_helper_is_in_no_sum_without_one",
    ),
    Mutant(
        "fedapp/common/state_digest.py",
        "for name, value in state.items() if value.is_floating_point()}",
        "for name, value in state.items()}",
        f"{SITE}::test_a_model_that_differs_in_counters_alone_is_the_same_model",
    ),
    Mutant(
        "fedapp/aggregation/bfv/seal_worker.py",
        "inner.parms_id() == self._level",
        "True",
        f"{ENCRYPTED}::test_a_ciphertext_at_a_lower_level_is_refused_in_any_order",
    ),
    Mutant(
        f"{PARTS}/gathered.py",
        "                self._close(choice)  # what was added before",
        "                pass  # what was added before",
        f"{TESTS}/test_gathered.py::test_a_crash_costs_the_reply_that_was_being_added",
    ),
    Mutant(
        f"{PARTS}/server.py",
        "        self._check_range(total, gotten.helpers[0][1].cohort)\n",
        "",
        f"{RUNS}::test_a_sum_that_no_cohort_can_have_changes_nothing_and_accuses_nobody",
    ),
    Mutant(
        f"{PARTS}/server.py",
        "blame=not error.is_repetition",
        "blame=True",
        f"{RUNS}::test_a_sum_that_no_cohort_can_have_changes_nothing_and_accuses_nobody",
    ),
]
