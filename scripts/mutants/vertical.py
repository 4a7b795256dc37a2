"""Vertical learning: matching, sealing, masks, sessions, and what a device keeps to itself."""

from mutants.mutant import Mutant

__all__ = ["MUTANTS"]

MATCHING = "tests/vertical/test_matching.py"
SEALING = "tests/vertical/test_sealing.py"
PARTS = "tests/inference/test_saved_parties.py"
TABLES = "tests/vertical/test_own_tables.py"
LABELS = "tests/vertical/test_label_attacks.py"
PREDICTING = "tests/vertical/test_predicting_devices.py"
TRANSCRIPT = "tests/vertical/test_transcript.py"

MUTANTS = [
    Mutant(
        "fedapp/vertical/group.py",
        "        if point == NEUTRAL:",
        "        if not point:",
        f"{MATCHING}::test_odd_points_are_refused_by_name",
    ),
    Mutant(
        "fedapp/vertical/group.py",
        "        if not is_point(point):",
        "        if not point:",
        f"{MATCHING}::test_odd_points_are_refused_by_name",
    ),
    Mutant(
        "fedapp/vertical/group.py",
        "first = first_equal(seen + content)[before:]",
        "first = first_equal(content) + before",
        f"{MATCHING}::test_too_many_own_or_missing_points_are_refused",
    ),
    Mutant(
        "fedapp/vertical/matching.py",
        "    secrets.SystemRandom().shuffle(rows)\n",
        "",
        f"{MATCHING}::test_points_are_fresh_and_in_random_order",
    ),
    Mutant(
        "fedapp/vertical/sealing.py",
        'return derive(secret, "channel", view)',
        'return derive(secret, "channel")',
        f"{SEALING}::test_another_view_gives_another_channel",
    ),
    Mutant(
        "fedapp/vertical/masking.py",
        "*sorted((me, other)), number, length=MASK_BYTES",
        "*sorted((me, other)), length=MASK_BYTES",
        f"{SEALING}::test_a_masked_message_is_uniform_and_never_the_same",
    ),
    Mutant(
        "fedapp/client/party/matching_stages.py",
        "    view.check_signed(run.peers, required=run.on_device)\n",
        "",
        f"{TABLES}::test_a_device_whose_peers_do_not_know_a_party_sends_it_nothing",
    ),
    Mutant(
        "fedapp/client/build.py",
        '        data["parties"] = dict.fromkeys(parties)',
        "        pass",
        f"{TABLES}::test_a_server_cannot_have_a_device_read_another_file",
    ),
    Mutant(
        "fedapp/client/party/party_run.py",
        "    if limits.peers is None or limits.signing_key is None:",
        "    if limits.signing_key is None:",
        f"{TABLES}::test_what_an_operator_forbids_or_lacks_is_said",
    ),
    Mutant(
        "fedapp/client/party/party_handlers.py",
        "    if order.number <= member.number:",
        "    if order.number < 0:",
        f"{TRANSCRIPT}::test_a_repeated_or_forged_order_is_refused_before_anything_is_masked",
    ),
    Mutant(
        "fedapp/vertical/saved_part.py",
        "        if digest != _digest(found):",
        "        if not digest:",
        f"{PARTS}::test_a_damaged_or_foreign_part_is_refused_by_name",
    ),
    Mutant(
        "fedapp/vertical/saved_part.py",
        "    if found != about.sha256:",
        "    if not found:",
        f"{PARTS}::test_a_damaged_or_foreign_part_is_refused_by_name",
    ),
    Mutant(
        "fedapp/inference/saved_parties.py",
        "        if part.about.shared != first.about.shared:",
        "        if not part.about.shared:",
        f"{PARTS}::test_a_damaged_or_foreign_part_is_refused_by_name",
    ),
    Mutant(
        "fedapp/inference/saved_parties.py",
        "        numbers = [number for number, stays in zip(numbers, kept.tolist(), strict=True) if stays]\n",
        "        numbers = numbers[: int(kept.sum())]\n",
        f"{PARTS}::test_rows_without_a_match_are_named",
    ),
    Mutant(
        "fedapp/vertical/group.py",
        "        new[1:] |= along[1:] != along[:-1]",
        "        new[1:] = along[1:] != along[:-1]",
        f"{MATCHING}::test_points_that_differ_in_a_few_bits_are_others",
    ),
    Mutant(
        "fedapp/vertical/identities.py",
        "(first := seen.setdefault(identity, row)) != row",
        "(first := seen.setdefault(identity, row)) > row",
        f"{MATCHING}::test_duplicates_are_named_by_row",
    ),
    Mutant(
        "fedapp/vertical/masking.py",
        "negative=me > other",
        "negative=False",
        f"{SEALING}::test_masks_cancel_in_the_sum",
    ),
    Mutant(
        "fedapp/vertical/masking.py",
        "    if not (np.abs(flat) <= LARGEST).all():",
        "    if (np.abs(flat) > 2 * LARGEST).any():",
        f"{SEALING}::test_values_that_do_not_fit_are_refused",
    ),
    Mutant(
        "fedapp/vertical/label_privacy.py",
        "keep = math.exp(self.epsilon) / (math.exp(self.epsilon) + classes - 1)",
        "keep = math.exp(self.epsilon) / (math.exp(self.epsilon) + classes - 1.2)",
        f"{LABELS}::test_randomised_labels_have_the_probabilities_of_their_epsilon",
    ),
    Mutant(
        "fedapp/client/party/label_ledger.py",
        "    if most is not None and total > most:",
        "    if most is not None and epsilon > most:",
        f"{LABELS}::test_labels_are_paid_for_once_for_each_set_that_is_drawn",
    ),
    Mutant(
        "fedapp/audit/embedding_attack.py",
        "    missing = found - found.mean(0) - wanted",
        "    missing = found - wanted",
        f"{LABELS}::test_sums_of_entities_that_repeat_determine_their_embeddings_up_to_a_constant",
    ),
    Mutant(
        "fedapp/client/party/party_run.py",
        "        if other := [key for key, agrees in same.items() if not agrees]:",
        "        if other := [key for key, agrees in same.items() if agrees is None]:",
        f"{PREDICTING}::test_what_cannot_be_predicted_is_said_and_nothing_is_kept",
    ),
    Mutant(
        "fedapp/client/party/prediction_stages.py",
        "write_atomically(path, found.to_csv(), mode=0o600)",
        "write_atomically(path, found.to_csv(), mode=0o644)",
        f"{PREDICTING}::test_the_label_party_alone_has_predictions_and_they_are_those_of_the_parts_in_one_place",
    ),
    Mutant(
        "fedapp/client/party/prediction_stages.py",
        '    if part.about.unmatched == "drop":',
        '    if part.about.unmatched == "zero":',
        f"{PREDICTING}::test_the_label_party_alone_has_predictions_and_they_are_those_of_the_parts_in_one_place",
    ),
    Mutant(
        "fedapp/vertical/vertical_options.py",
        're.fullmatch("[0-9a-f]{16}", config.vertical.predict)',
        're.search("[0-9a-f]{3}", config.vertical.predict)',
        f"{PREDICTING}::test_a_name_that_is_none_is_refused",
    ),
]
