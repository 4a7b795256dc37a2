"""Buffered rounds, virtual time and replay: what each client may cost, and what is the same again."""

from mutants.mutant import Mutant

__all__ = ["MUTANTS"]

HERE = "fedapp/server/asynchronous"
ROUNDS, OPTION, ARRIVALS = f"{HERE}/asynchronous_rounds.py", f"{HERE}/option.py", f"{HERE}/arrivals.py"
VIRTUAL, STEP, CONFLICTS = f"{HERE}/virtual_arrivals.py", f"{HERE}/stepped.py", f"{HERE}/one_by_one.py"
SCREENING = f"{HERE}/screening.py"
POLICY, RECORD, BUFFER = f"{HERE}/policy.py", f"{HERE}/recorded_order.py", "fedapp/aggregation/plain/update_buffer.py"
TESTS = "tests/server/asynchronous"
BUFFERED, RESUMED = f"{TESTS}/test_buffered_rounds.py", f"{TESTS}/test_resumed_buffer.py"
OPTIONS = f"{TESTS}/test_buffered_options.py"
ONCE = f"{BUFFERED}::test_no_client_has_two_updates_in_a_buffer_or_trains_twice_from_a_model"
STALE = f"{BUFFERED}::test_a_stale_update_is_not_used_and_says_why"
HOSTILE = f"{BUFFERED}::test_a_hostile_reply_costs_no_more_than_itself"
REPLAYS = f"{TESTS}/test_replay.py"
REPLAY = f"{REPLAYS}::test_a_recorded_order_is_replayed_bit_for_bit"
COUNTS = "tests/aggregation/test_update_buffer.py::test_a_stale_update_counts_less_and_makes_the_step_smaller"
KEPT = f"{RESUMED}::test_a_buffer_is_kept_and_nobody_in_it_is_asked_again"
NAMED = f"{OPTIONS}::test_conflicts_are_named_before_anything_starts"

MUTANTS = [
    Mutant(ROUNDS, "self._at_work.clients | this.asked | this.rows.keys()", "self._at_work.clients", ONCE),
    Mutant(SCREENING, "if staleness > policy.max_staleness:", "if False:", STALE),
    Mutant(
        SCREENING,
        'found.reject(client, "bad reply: it is to another message")\n        found.add(own.reports.values())',
        "found.add(own.reports.values())",
        HOSTILE,
    ),
    Mutant(
        ROUNDS,
        "check_replayed(job, ended.verdict[0], outcome, why)",
        "pass",
        f"{REPLAYS}::test_a_replay_ends_where_an_update_is_not_to_be_had_again",
    ),
    Mutant(
        STEP,
        "if len(this.updates) < strategy.min_clients:",
        "if not this.updates:",
        f"{BUFFERED}::test_too_few_good_updates_change_nothing_and_end_the_run",
    ),
    Mutant(ROUNDS, "            self._flush()\n            self._save()\n", "            self._flush()\n", KEPT),
    Mutant(BUFFER, "or reply.updates.keys() != {client}", "", HOSTILE),
    Mutant(
        BUFFER,
        "weights[client] * staleness_weights[client])",
        "weights[client])",
        f"{BUFFERED}::test_staleness_is_weighed_and_divided_as_in_the_paper",
    ),
    Mutant(
        BUFFER,
        "math.fsum(weights[client] for client in updates)",
        "math.fsum(weights[client] * staleness_weights[client] for client in updates)",
        COUNTS,
    ),
    Mutant(
        VIRTUAL,
        "job = min(self._jobs.values(), key=lambda job: (job.ends_at, job.number))",
        "job = min(self._jobs.values(), key=lambda job: -job.number)",
        f"{OPTIONS}::test_over_selection_takes_the_fastest_and_calls_the_others_surplus",
    ),
    Mutant(
        ARRIVALS,
        "            elif found is None:\n                self.strays.append(reply)\n",
        "            elif found is None:\n                pass\n",
        f"{BUFFERED}::test_a_second_reply_is_dropped",
    ),
    Mutant(
        VIRTUAL,
        'if saved["timeout"] != self._limit:',
        "if False:",
        f"{RESUMED}::test_virtual_time_goes_on_with_the_timeout_that_it_began_with",
    ),
    Mutant(
        VIRTUAL,
        "answers = not gone and takes <= self._limit",
        "answers = not gone",
        f"{OPTIONS}::test_who_is_slower_than_the_timeout_is_late",
    ),
    Mutant(
        RECORD,
        "answers=job.number in self._taken)",
        "answers=True)",
        f"{REPLAYS}::test_a_replay_leaves_out_what_the_run_did_not_use",
    ),
    Mutant(
        RECORD,
        '            found.append(event["client"])\n',
        '            found.insert(0, event["client"])\n',
        REPLAY,
    ),
    Mutant(
        POLICY,
        "return 0 if waits else self.concurrency - at_work",
        "return self.concurrency - at_work",
        f"{BUFFERED}::test_equal_speeds_and_a_buffer_of_the_cohort_are_synchronous_rounds",
    ),
    Mutant(CONFLICTS, "if protocol.buffer(config, UpdateSteps()) is None:", "if False:", NAMED),
    Mutant(OPTION, "if not privacy.discloses_cohort:\n            chosen", "if False:\n            chosen", NAMED),
    Mutant(
        OPTION,
        "if self.buffer_size > clients:",
        "if False:",
        f"{OPTIONS}::test_a_buffer_larger_than_the_population_is_never_full",
    ),
    Mutant(
        RECORD,
        'over = event is not None and event["event"] == OVER',
        "over = event is None",
        f"{REPLAYS}::test_a_round_that_ended_short_ends_there_again",
    ),
    Mutant(
        RECORD,
        'or self._events[self.position]["round"] != server_round',
        "",
        f"{REPLAYS}::test_a_record_without_the_end_of_a_round_is_not_replayed",
    ),
    Mutant(
        RECORD,
        'event["outcome"] == REJECTED or event.get(TRAINED)',
        "event.get(TRAINED)",
        f"{REPLAYS}::test_what_clients_keep_is_replayed_with_the_work_of_those_who_were_rejected",
    ),
    Mutant(
        RECORD,
        'event["outcome"] == REJECTED or event.get(TRAINED)',
        'event["outcome"] == REJECTED',
        f"{REPLAYS}::test_error_feedback_of_late_clients_is_replayed",
    ),
    Mutant(
        RECORD,
        "    if keeps:\n        _check_known(key, events)\n",
        "",
        f"{REPLAYS}::test_a_client_that_may_have_trained_unseen_cannot_be_replayed",
    ),
    Mutant(OPTION, "if privacy_of(config).spends:", "if False:", f"{REPLAYS}::test_noise_is_not_replayed"),
    Mutant(
        VIRTUAL,
        "        self._free_at = {client: at for client, at in self._free_at.items() if at > self.now}\n",
        "        self._free_at = {}\n",
        f"{OPTIONS}::test_who_is_slower_than_the_timeout_is_late",
    ),
    Mutant(
        f"{HERE}/client_speed.py",
        "return PLAYED_TIMEOUT if speed_of(config).plays else config.federation.round_timeout",
        "return config.federation.round_timeout",
        f"{BUFFERED}::test_virtual_time_is_the_same_however_long_the_work_takes",
    ),
    Mutant(
        "fedapp/client/heads.py",
        "[*old[:-2],",
        "[*old[:-1],",
        "tests/client/test_personal.py::test_files_of_heads",
    ),
]
