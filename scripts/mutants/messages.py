"""What messages may hold, and what replies may decide."""

from mutants.mutant import Mutant

__all__ = ["MUTANTS"]

RECORDS, SIZES = "fedapp/wire/records.py", "fedapp/server/reply_sizes.py"
REPLIES, FRAMES = "fedapp/flower/replies.py", "fedapp/client/worker/frames.py"
FUZZED, TAKEN = "tests/wire/test_fuzzed_messages.py", "tests/flower/test_replies.py"
FRAMED, TRICKS = "tests/client/test_worker_frames.py", "tests/server/test_hostile_client.py"
BOMBS = f"{FUZZED}::test_no_memory_is_taken_for_what_is_not_there"
MALFORMED = f"{TAKEN}::test_what_is_no_message_costs_its_sender_alone"
TOO_MUCH = f"{TAKEN}::test_endless_parts_are_not_all_fetched"
FORGED = f"{TRICKS}::test_a_reply_bears_the_name_of_the_supernode_that_was_asked"
NOISE = f"{FRAMED}::test_only_documented_errors_come_out"

MUTANTS = [
    Mutant(
        RECORDS,
        "for character in value[:LONGEST_TEXT]",
        "for character in value",
        f"{FUZZED}::test_a_text_is_cut_before_it_is_cleaned",
    ),
    Mutant(RECORDS, "or len(array.data) != start + count * dtype.itemsize:", ":", BOMBS),
    Mutant(RECORDS, "except (ValueError, OverflowError):", "except OverflowError:", BOMBS),
    Mutant(
        "fedapp/wire/instruction.py",
        "except RecursionError:",
        "except KeyError:",
        f"{FUZZED}::test_plans_that_are_nested_too_deeply_are_refused",
    ),
    Mutant(REPLIES, "if taken > self.largest:", "if False:", TOO_MUCH),
    Mutant(REPLIES, "if not isinstance(made, Message):", "if False:", MALFORMED),
    Mutant(REPLIES, "except Exception as fault:", "except KeyError as fault:", MALFORMED),
    Mutant(SIZES, "if reply.metadata.src_node_id != stub.metadata.dst_node_id:", "if False:", FORGED),
    Mutant(
        SIZES,
        "if (found := size(reply.content)) > largest:",
        "if (found := 0):",
        f"{TRICKS}::test_too_large_a_reply_is_named",
    ),
    Mutant(
        FRAMES,
        "recv(min(length - len(found), AT_ONCE))",
        "recv(length - len(found))",
        f"{FRAMED}::test_no_memory_is_taken_for_what_does_not_come",
    ),
    Mutant(
        FRAMES,
        "if lengths[0] > LARGEST_HEADER or max(lengths) > LARGEST:",
        "if False:",
        f"{FRAMED}::test_what_is_too_large_is_refused_at_once",
    ),
    Mutant(FRAMES, "if not isinstance(header, dict):", "if False:", NOISE),
    Mutant(FRAMES, "except RecursionError:", "except KeyError:", NOISE),
]
