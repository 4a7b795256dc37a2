"""Compressed updates: unbiased, summed exactly, bounded, and rejected by name where they are hostile."""

from mutants.mutant import Mutant

__all__ = ["MUTANTS"]

CODECS, RUNS = "tests/updates/test_codecs.py", "tests/updates/test_compressed_runs.py"
PRIVATE = "tests/updates/test_private_codecs.py"
DOWNLINK, DIFFERENCE = "tests/updates/test_downlink.py", "tests/updates/test_difference_codec.py"
NORMS, RESTARTS = "tests/updates/test_norm_of_levels.py", "tests/client/test_kept_over_restarts.py"
PACKAGE = "fedapp/updates"

MUTANTS = [
    Mutant(
        f"{PACKAGE}/levels.py",
        ".add_(torch.from_numpy(random))",
        ".add_(0.4)",
        f"{CODECS}::test_what_is_summed_is_unbiased_within_the_range",
    ),
    Mutant(
        f"{PACKAGE}/drive.py",
        "block.square().sum(1) / size.clamp_min(SMALLEST)",
        "size / block.shape[1]",
        f"{CODECS}::test_what_is_decoded_reply_by_reply_is_unbiased",
    ),
    Mutant(
        f"{PACKAGE}/top_k.py",
        "residual = wanted.clone()",
        "residual = update.clone()",
        f"{CODECS}::test_the_residual_and_what_was_sent_are_what_was_to_be_sent",
    ),
    Mutant(
        f"{PACKAGE}/top_k.py",
        "if count > 1 and not (np.diff(places) > 0).all():",
        "if False:",
        f"{CODECS}::test_indices_that_cannot_be_are_rejected",
    ),
    Mutant(
        f"{PACKAGE}/per_reply.py",
        "(scales >= 0) & (scales <= LARGEST_SCALE)",
        "scales >= 0",
        f"{CODECS}::test_a_scale_that_no_update_has_is_rejected",
    ),
    Mutant(
        f"{PACKAGE}/summed_levels.py",
        "self.norm = min(max(norm, LEAST_NORM), self._largest_norm)",
        "self.norm = max(norm, LEAST_NORM)",
        f"{CODECS}::test_a_hostile_client_does_not_widen_the_range_past_the_ceiling",
    ),
    Mutant(
        f"{PACKAGE}/summed_levels.py",
        "return {WEIGHT: float(min(max(largest, 1.0), MOST_WEIGHT))}",
        "return {WEIGHT: 1.0}",
        f"{CODECS}::test_a_client_with_much_data_counts_as_much_as_it_should",
    ),
    Mutant(
        "fedapp/aggregation/plain/server.py",
        "if self._level_bits is not None:  # a single update would go past what bounds levels",
        "if False:",
        f"{RUNS}::test_a_single_update_in_place_of_levels_is_rejected_by_name",
    ),
    Mutant(
        f"{PACKAGE}/steps.py",
        "(*before, *([] if last.idle else [last]))",
        "(*([] if last.idle else [last]), *before)",
        f"{RUNS}::test_limits_and_noise_come_before_compression",
    ),
    Mutant(
        f"{PACKAGE}/quantised.py",
        "if seen and (each or before):",
        "if seen and each:",
        f"{RUNS}::test_limits_and_noise_come_before_compression",
    ),
    Mutant(
        "fedapp/aggregation/plain/packed_levels.py",
        "if size and (most := int(found.max())) > highest:",
        "if size and (most := int(found.max())) < 0:",
        f"{RUNS}::test_a_hostile_reply_is_rejected_by_name_and_the_run_goes_on",
    ),
    Mutant(
        "fedapp/aggregation/whole_numbers/fixed_point.py",
        "(min(cohort, MOST_LEVELS) - 1).bit_length()",
        "(min(cohort, MOST_LEVELS) - 1).bit_length() - 1",
        f"{RUNS}::test_a_sum_needs_log2_of_the_cohort_more_bits_and_no_more",
    ),
    Mutant(
        "fedapp/aggregation/whole_numbers/trained_vector.py",
        "replace(instruction, clients=(client,), weights=(weight,))",
        "replace(instruction, clients=(client,), weights=(1.0,))",
        f"{RUNS}::test_sums_are_the_same_bit_for_bit_in_the_clear_and_under_masks",
    ),
    Mutant(
        "fedapp/privacy/client_level/client_dp.py",
        "if any(step.feeds_back for step in steps_of(config).steps):",
        "if False:",
        f"{RUNS}::test_what_does_not_go_together_is_refused_by_name",
    ),
    Mutant(
        "fedapp/client/step_states.py",
        "after(server_round - 1)",
        "after(server_round)",
        f"{RUNS}::test_a_resumed_run_ends_with_the_same_model",
    ),
    Mutant(
        "fedapp/privacy/client_level/central_step.py",
        "clipped = within(self._only_trained(update), self._norm(params) - self.room)",
        "clipped = self._only_trained(update)",
        f"{PRIVATE}::test_one_client_changes_the_sum_by_the_clipping_norm_at_most",
    ),
    Mutant(
        f"{PACKAGE}/difference_codec.py",
        "np.floor(shares + random.random(shares.shape, dtype=np.float32))",
        "np.rint(shares)",
        f"{DIFFERENCE}::test_it_is_unbiased",
    ),
    Mutant(
        f"{PACKAGE}/difference_codec.py",
        "(scales >= 0) & (scales <= LARGEST)",
        "scales >= 0",
        f"{DIFFERENCE}::test_hostile_differences_are_refused_by_name",
    ),
    Mutant(
        f"{PACKAGE}/difference_codec.py",
        "if size and (highest := int(levels.max())) > 2 * self._top:",
        "if size and (highest := int(levels.max())) > 255:",
        f"{DIFFERENCE}::test_hostile_differences_are_refused_by_name",
    ),
    Mutant(
        "fedapp/client/received_models.py",
        "if state_sha256(model) != found.model:",
        "if False:",
        f"{DOWNLINK}::test_differences_to_another_model_ask_for_the_whole_and_train_nothing",
    ),
    Mutant(
        "fedapp/models/shared_state.py",
        "frozenset(model.state_dict()) - {name for",
        "frozenset[str]() - {name for",
        f"{DIFFERENCE}::test_a_small_variance_beside_large_ones_stays_what_it_is",
    ),
    Mutant(
        "fedapp/server/delivered_models.py",
        "self._held.pop(node, None)  # nobody knows",
        "pass  # nobody knows",
        f"{DOWNLINK}::test_after_an_error_the_next_message_brings_the_whole",
    ),
    Mutant(
        "fedapp/client/run_folders.py",
        "(path for path in self._folders() if path != target)",
        "self._others(target.name)",
        "tests/client/test_device_limits.py::test_what_else_a_run_stores_counts_as_well",
    ),
    Mutant(
        "fedapp/server/delivered_models.py",
        "unpack_has(reply.content) == model.sha256",
        "unpack_has(reply.content) != ''",
        f"{DOWNLINK}::test_what_a_supernode_says_falsely_harms_nobody_else",
    ),
    Mutant(
        "fedapp/server/delivered_models.py",
        "self._unbooked += content_bytes(whole.content)",
        "pass",
        f"{DOWNLINK}::test_who_has_lost_its_storage_gets_the_whole_in_the_same_round",
    ),
    Mutant(
        "fedapp/server/horizontal_rounds.py",
        "changed if changed is None else self.delivered.adopted(self.model, changed, server_round)",
        "changed",
        f"{DOWNLINK}::test_bytes_down_are_those_on_the_wire",
    ),
    Mutant(
        f"{PACKAGE}/summed_levels.py",
        "/ 2 * math.sqrt(clients * squares)",
        "* clients * math.sqrt(length)",
        f"{NORMS}::test_a_longer_sum_is_rejected",
    ),
    Mutant(
        f"{PACKAGE}/quantised.py",
        "if self.bits < FEWEST_BOUNDED:",
        "if False:",
        f"{NORMS}::test_few_bits_are_refused_by_name_beside_a_limit_on_sums",
    ),
    Mutant(
        f"{PACKAGE}/quantised.py",
        "most = min(most, limit)",
        "pass",
        f"{NORMS}::test_few_bits_are_refused_by_name_beside_a_limit_on_sums",
    ),
    Mutant(
        "fedapp/client/storage.py",
        "return FolderModels(folder.path / RECEIVED / run, before_keeping=room)",
        "pass",
        f"{RESTARTS}::test_the_last_model_outlasts_its_supernode",
    ),
]
