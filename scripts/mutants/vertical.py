"""Vertical learning: matching, sealing, masks, sessions, and what a device keeps to itself."""

from mutants.mutant import Mutant

__all__ = ["MUTANTS"]

MATCHING = "tests/vertical/test_matching.py"
SEALING = "tests/vertical/test_sealing.py"
PARTS = "tests/inference/test_saved_parties.py"
TABLES = "tests/vertical/test_own_tables.py"
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
        "if point in found or point in own:",
        "if point in found:",
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
        'return derive(shared, "channel", view)',
        'return derive(shared, "channel")',
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
]
