"""DP-SGD: clipping, noise, budget, ledger, what leaves a client, and the audit's bounds."""

from mutants.mutant import Mutant

__all__ = ["MUTANTS"]

CLIPPING, TRAINING = "tests/privacy/test_clipping.py", "tests/privacy/test_dp_training.py"
LEDGER, ACCOUNTS = "tests/privacy/test_ledger.py", "tests/privacy/test_server_accounts.py"

MUTANTS = [
    Mutant(
        "fedapp/privacy/dp_sgd.py",
        "if on_device and (inferred := parts.source.from_rows()):",
        "if on_device and (inferred := ()):",
        "tests/privacy/test_private_run.py::test_no_row_of_a_device_decides_how_the_others_are_read",
    ),
    Mutant(
        "fedapp/privacy/clipping.py",
        "factors = torch.where(safe, (bound / norms).clamp(max=1.0), 0.0)",
        "factors = torch.where(safe, (bound / norms).clamp(max=1.01), 0.0)",
        f"{CLIPPING}::test_one_example_changes_the_sum_by_c_at_most",
    ),
    Mutant(
        "fedapp/privacy/clipping.py",
        "bound = (1 - SLACK) * max_norm",
        "bound = (1 + SLACK) * max_norm",
        f"{CLIPPING}::test_large_activations_times_gradients_whose_squares_vanish",
    ),
    Mutant(
        "fedapp/privacy/clipping.py",
        "scaled = right * (size * factors[:, None])",
        "scaled = right * size.clamp(max=1.0)",
        f"{CLIPPING}::test_one_example_changes_the_sum_by_c_at_most",
    ),
    Mutant(
        "fedapp/privacy/clipping.py",
        "if bool(torch.isfinite(norm)):",
        "if True:",
        f"{CLIPPING}::test_a_row_that_is_not_safely_finite_is_scaled_alone_or_counts_as_zero",
    ),
    Mutant(
        "fedapp/privacy/clipping.py",
        "        flat = torch.where(safe.to(flat.device)[:, None], flat, 0.0)\n",
        "        pass\n",
        f"{CLIPPING}::test_a_row_that_is_not_safely_finite_is_scaled_alone_or_counts_as_zero",
    ),
    Mutant(
        "fedapp/privacy/opacus_internals.py",
        "not self._shared.isdisjoint(module.parameters())",
        "False",
        f"{CLIPPING}::test_tied_parameters_are_clipped_as_one",
    ),
    Mutant(
        "fedapp/privacy/dp_training.py",
        "noise.normal(total.shape, self.noise_multiplier * self.max_grad_norm)",
        "noise.normal(total.shape, 0.9 * self.noise_multiplier * self.max_grad_norm)",
        f"{TRAINING}::test_an_empty_batch_is_noise_alone",
    ),
    Mutant(
        "fedapp/privacy/dp_training.py",
        "                fill_masks()\n",
        "",
        f"{TRAINING}::test_all_that_draws_from_torch_draws_from_the_stream",
    ),
    Mutant(
        "fedapp/privacy/noise.py",
        "words[:] = self._random.integers(0, 2**32, MERSENNE_WORDS, dtype=np.uint64)",
        "words[:1] = self._random.integers(0, 2**32, MERSENNE_WORDS, dtype=np.uint64)[:1]",
        f"{TRAINING}::test_masks_do_not_hang_on_a_seed_of_32_bits",
    ),
    Mutant(
        "fedapp/privacy/noise.py",
        'return Noise(int.from_bytes(os.urandom(16), "big"))',
        "return Noise(seed)",
        f"{TRAINING}::test_two_runs_of_one_seed_differ_and_the_global_generator_does_not_matter",
    ),
    Mutant(
        "fedapp/privacy/budget.py",
        "if not after <= self.max_epsilon and not self.void:",
        "if False:",
        f"{LEDGER}::test_a_round_too_much_is_declined_and_not_written",
    ),
    Mutant(
        "fedapp/privacy/budget.py",
        "history = [entry.spent for entry in entries]\n",
        "history = []\n",
        f"{LEDGER}::test_a_round_too_much_is_declined_and_not_written",
    ),
    Mutant(
        "fedapp/privacy/budget.py",
        "return min(own, self.delta or own)",
        "return self.delta or own",
        f"{LEDGER}::test_a_device_takes_a_smaller_delta_but_no_larger_one",
    ),
    Mutant(
        "fedapp/privacy/ledger.py",
        "            os.fsync(file.fileno())\n",
        "",
        f"{LEDGER}::test_a_payment_is_on_the_disk_before_it_counts",
    ),
    Mutant(
        "fedapp/privacy/ledger_lines.py",
        'if chain != _chain(body, lines[number - 1] if number else ""):',
        "if False:",
        f"{LEDGER}::test_a_damaged_ledger_stops_the_client_and_is_left_as_it_is",
    ),
    Mutant(
        "fedapp/privacy/ledger.py",
        "+ ([second_head] if second_head else [])",
        "+ []",
        f"{LEDGER}::test_a_lost_folder_is_noticed_by_another_one",
    ),
    Mutant(
        "fedapp/privacy/ledger.py",
        "            fcntl.flock(file, fcntl.LOCK_EX)\n",
        "",
        f"{LEDGER}::test_nobody_else_reads_or_writes_while_one_decides",
    ),
    Mutant(
        "fedapp/privacy/accounting.py",
        "error = LEAST_PRV_ERROR * max(1.0, excess)",
        "error = LEAST_PRV_ERROR",
        f"{LEDGER}::test_prv_is_asked_a_few_times_on_a_bounded_grid",
    ),
    Mutant(
        "fedapp/privacy/server_accounts.py",
        "if not said.epsilon >= least * (1 - ROUNDING):",
        "if said.epsilon < least * (1 - ROUNDING):",
        f"{ACCOUNTS}::test_an_epsilon_that_cannot_be_is_not_taken",
    ),
    Mutant(
        "fedapp/privacy/server_accounts.py",
        "rounds = self.trained.get(report.client, 0) + 1",
        "rounds = 1",
        f"{ACCOUNTS}::test_what_was_booked_is_not_forgotten",
    ),
]
