"""Secure aggregation against a server that lies: sums, signatures, repetitions, blame, batches, and devices' keys."""

from mutants.mutant import Mutant

__all__ = ["MUTANTS"]

PARTS = "fedapp/aggregation/secaggplus"
NUMBERS = "fedapp/aggregation/whole_numbers"
TESTS = "tests/aggregation/secaggplus"
CONSISTENCY, REPETITION, BLAME = (f"{TESTS}/test_{name}.py" for name in ("consistency", "repetition", "blame"))
BATCH_TESTS = f"{TESTS}/test_batches.py"
KEYS, KEY_TESTS = "fedapp/common/device_keys.py", "tests/common/test_device_keys.py"
SIGNATURES = f"{CONSISTENCY}::test_nothing_is_revealed_without_enough_signatures_of_that_list"
ONE_LIST = f"{CONSISTENCY}::test_one_list_is_signed_and_nothing_is_revealed_without_a_signature"
SAME = f"{REPETITION}::test_a_model_is_summed_over_again_for_the_same_clients_weights_and_work"
BOUND = "tests/server/population/test_bound_clients.py"
THIRD = f"{BLAME}::test_it_takes_a_third_of_the_neighbours_and_more_than_may_work_together"

SUMS = [
    Mutant(
        f"{NUMBERS}/quantise.py",
        "if beyond <= MOST_CLIPPED:",
        "if True:",
        f"{TESTS}/test_parts.py::test_no_clip_makes_an_update_a_list_of_signs",
    ),
    Mutant(
        "fedapp/client/build.py",
        "steps if seen else steps.unseen(),",
        "steps,",
        f"{TESTS}/test_secure_run.py::test_no_norm_limit_tells_who_is_above_it",
    ),
    Mutant(
        f"{PARTS}/least_sum.py",
        "found = view.component(client, among)",
        "found = set(among)",
        f"{CONSISTENCY}::test_survivors_that_dropouts_have_cut_off_count_alone",
    ),
    Mutant(
        f"{PARTS}/member.py",
        "    least.check(view, secrets.client, found)\n",
        "",
        f"{CONSISTENCY}::test_nor_do_they_train_when_others_were_lost_before",
    ),
    Mutant(
        f"{PARTS}/least_sum.py",
        "if worth < (least := least_size(self.min_cohort)):",
        "if worth < (least := 0):",
        f"{CONSISTENCY}::test_weights_count_within_one_s_own_component",
    ),
    Mutant(
        f"{PARTS}/settings.py",
        "if self.colluders(cohort) < 0:",
        "if self.colluders(cohort) < -1:",
        f"{CONSISTENCY}::test_a_threshold_that_half_of_the_holders_reach_is_refused_on_devices",
    ),
    Mutant(
        f"{PARTS}/member.py",
        "return pair.agree(public, view.digest, told,",
        'return pair.agree(public, view.digest, b"",',
        f"{CONSISTENCY}::test_clients_that_were_told_of_others_have_no_mask_in_common",
    ),
    Mutant(
        "fedapp/privacy/limits.py",
        "if anywhere.min_cohort is not None and anywhere.peers is None and anywhere.helper is None:",
        "if False:",
        f"{TESTS}/test_pins.py::test_a_min_cohort_without_peers_is_refused",
    ),
]
LISTS = [
    Mutant(f"{PARTS}/unmasking.py", "        if found < view.needed:\n", "        if False:\n", SIGNATURES),
    Mutant(
        f"{PARTS}/unmasking.py",
        "if client not in survivors or not signed_list(view, client, signature, secrets.agreed):",
        "if client not in survivors:",
        SIGNATURES,
    ),
    Mutant(
        f"{PARTS}/unmasking.py",
        "if signed and list_digest(view, survivors, dropped) != secrets.agreed:",
        "if False:",
        SIGNATURES,
    ),
    Mutant(
        f"{PARTS}/unmasking.py",
        'expect(secrets, "consistency" if signed else "masked", view.run',
        "expect(secrets, secrets.stage, view.run",
        ONE_LIST,
    ),
    Mutant(
        f"{PARTS}/unmasking.py",
        'expect(secrets, "masked", view.run, view.server_round, view.digest)',
        "pass",
        ONE_LIST,
    ),
    Mutant(
        f"{PARTS}/signing.py",
        "signer(signature) == signer(member.signature) and is_signed(",
        "is_signed(",
        f"{CONSISTENCY}::test_whoever_signs_for_another_client_does_not_count",
    ),
    Mutant(
        f"{PARTS}/signing.py",
        "elif signer(member.signature) in used:",
        "elif False:",
        f"{TESTS}/test_pins.py::test_without_pins_each_client_still_needs_a_device_of_its_own",
    ),
]
REPETITIONS = [
    Mutant(f"{PARTS}/repetition.py", 'if noted["work"] != view.work:', "if False:", SAME),
    Mutant(f"{PARTS}/repetition.py", "                if not same:\n", "                if False:\n", SAME),
    Mutant(
        f"{PARTS}/repetition.py",
        "math.isclose(one, other, rel_tol=ROUNDING)",
        "math.isclose(one, other, rel_tol=10)",
        SAME,
    ),
    Mutant(
        f"{NUMBERS}/noted_file.py",
        "if self.file.seek(0, os.SEEK_END) + len(line) > self.most_bytes:",
        "if self.file.seek(0, os.SEEK_END) < 0:",
        f"{REPETITION}::test_a_full_store_refuses_and_evicts_nothing",
    ),
    Mutant(
        f"{PARTS}/repetition.py",
        'if not set(noted["survivors"]) <= set(present):',
        "if False:",
        f"{REPETITION}::test_it_is_refused_before_anybody_trains",
    ),
    Mutant(
        f"{PARTS}/client.py",
        "self.repetitions.note(view, view.component(client, survivors))",
        "pass",
        f"{TESTS}/test_hostile_server.py::test_nor_two_sums_of_one_model_over_different_clients",
    ),
    Mutant(
        "fedapp/server/repeated.py",
        "self.instruction = _restricted(cohort.instruction, aggregate.revealed)",
        "pass",
        f"{REPETITION}::test_a_round_that_revealed_shares_and_changed_nothing_is_repeated_with_its_survivors",
    ),
]
BLAMED = "if SHARE * len(by) >= of and len(by) > tolerated and len(by) >= LEAST:"
FAULTS = [
    Mutant(f"{PARTS}/blame.py", BLAMED, "if SHARE * len(by) >= of and len(by) >= LEAST:", THIRD),
    Mutant(f"{PARTS}/blame.py", BLAMED, "if len(by) > tolerated and len(by) >= LEAST:", THIRD),
    Mutant(
        f"{PARTS}/blame.py",
        BLAMED,
        "if SHARE * len(by) >= of and len(by) > tolerated:",
        f"{BLAME}::test_one_liar_excludes_nobody_however_few_its_neighbours",
    ),
    Mutant(
        f"{PARTS}/blame.py",
        "set(accused).intersection(view.neighbours(client))",
        "set(accused)",
        f"{BLAME}::test_strangers_blame_nobody",
    ),
    Mutant(
        f"{PARTS}/member.py",
        "if any(commitment(piece, view.digest, kind, sender, receiver) != known for kind, piece, known in told):",
        "if False:",
        f"{BLAME}::test_who_seals_junk_for_many_is_blamed_and_the_others_go_on_without_it[other_commitments]",
    ),
]
DEVICES = [
    Mutant(KEYS, "if signer(signature) != known:", "if False:", f"{KEY_TESTS}::test_no_site_speaks_for_another"),
    Mutant(
        KEYS,
        "if other := files.get(client) or files.get(point):",
        "if other := files.get(client):",
        f"{KEY_TESTS}::test_the_folder_must_bind_each_key_to_one_client",
    ),
    Mutant(
        KEYS,
        "return int(said[0][1]) if len(said) == 1 else None",
        "return int(said[0][1]) if said else None",
        f"{KEY_TESTS}::test_the_folder_must_bind_each_key_to_one_client",
    ),
    Mutant(
        "fedapp/server/population/joining.py",
        "bound is not None and report.clients not in ((), (bound,)):",
        "False:",
        f"{BOUND}::test_a_supernode_that_claims_another_s_number_is_the_one_that_is_left_out",
    ),
]
BATCHES = [
    Mutant(
        f"{PARTS}/least_sum.py",
        "if absent := missing(found, view.settings.batch):",
        "if absent := missing(found, 1):",
        f"{BATCH_TESTS}::test_a_client_refuses_a_sum_without_a_part_of_any_batch_at_every_stage",
    ),
    Mutant(
        f"{PARTS}/cohort_view.py",
        "repr(astuple(setting)).encode(),",
        "repr(astuple(setting)[:-1]).encode(),",
        f"{BATCH_TESTS}::test_batches_are_part_of_what_clients_are_bound_to",
    ),
    Mutant(
        f"{PARTS}/batches.py",
        "if len(batch) == size]",
        "if batch]",
        f"{BATCH_TESTS}::test_no_combination_of_sums_over_many_rounds_tells_of_less_than_a_batch",
    ),
    Mutant(
        f"{PARTS}/batches.py",
        "if len(found := parts(clients, self._size)) != 1:",
        "if not (found := {WHOLE: list(clients)}):",
        f"{BATCH_TESTS}::test_parts_of_several_batches_in_one_vector_are_refused",
    ),
    Mutant(
        f"{PARTS}/collector.py",
        "clients = sorted(self.complete)",
        "clients = sorted(self._keys)",
        f"{BATCH_TESTS}::test_in_a_run_a_dropout_costs_its_batch_and_its_batch_alone_has_no_fault[keys]",
    ),
    Mutant(
        f"{PARTS}/collector.py",
        "self._masked = set(self._sums.complete)",
        "pass",
        f"{BATCH_TESTS}::test_a_dropout_takes_its_batch_out_of_the_sum",
    ),
    Mutant(
        f"{PARTS}/option.py",
        "return complete_batches(clients, self.settings.batch)",
        "return complete_batches(clients, 1)",
        f"{BATCH_TESTS}::test_cohorts_are_whole_batches_by_seed_round_and_clients_and_batches_the_same_for_every_seed",
    ),
]
MUTANTS = [*SUMS, *LISTS, *REPETITIONS, *FAULTS, *BATCHES, *DEVICES]
