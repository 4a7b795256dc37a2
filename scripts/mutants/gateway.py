"""What reaches the SuperLink, and what it may cost."""

from mutants.mutant import Mutant

__all__ = ["MUTANTS"]

GATEWAY, BODIES = "fedapp/deploy/gateway.py", "fedapp/deploy/bodies.py"
CONNECTIONS, CALLS = "fedapp/deploy/connections.py", "fedapp/flower/fleet_calls.py"
TESTS = "tests/deploy/test_gateway_bounds.py"
KEY = f"{TESTS}::test_who_shows_no_admitted_key_is_refused_before_the_body"
OLD = f"{TESTS}::test_a_time_long_ago_is_refused"
OTHER = f"{TESTS}::test_other_calls_are_not_passed_on"
SIZE = f"{TESTS}::test_each_kind_of_call_has_its_size"
IDLE = f"{TESTS}::test_a_stranger_who_does_nothing_is_ended"
HELD = f"{TESTS}::test_a_call_that_is_held_when_the_gateway_ends_is_no_fault"
BUSIEST = f"{TESTS}::test_of_too_many_strangers_the_busiest_address_loses_its_oldest"

MUTANTS = [
    Mutant(GATEWAY, 'if scope["method"] != "POST" or path not in LARGEST:', "if path not in LARGEST:", OTHER),
    Mutant(GATEWAY, "if key not in self._admitted():", "if False:", KEY),
    Mutant(GATEWAY, "if not is_signed(headers, key):", "if False:", KEY),
    Mutant(GATEWAY, 'http="h11"', 'http="auto"', f"{TESTS}::test_the_head_of_a_call_is_bounded"),
    Mutant(
        GATEWAY, "proxy_headers=False", "proxy_headers=True", f"{TESTS}::test_nobody_says_where_another_call_comes_from"
    ),
    Mutant(GATEWAY, "answer = Answer(503)\n        except Exception", "raise\n        except Exception", HELD),
    Mutant(
        GATEWAY,
        '            self.connections.end(scope["client"])\n',
        "            pass\n",
        f"{TESTS}::test_who_does_not_take_its_reply_is_ended",
    ),
    Mutant(BODIES, "if len(body) > largest:", "if len(body) > 2 * largest:", SIZE),
    Mutant(
        BODIES,
        "await asyncio.wait_for(receive(), max(left, 0.0))",
        "await receive()",
        f"{TESTS}::test_who_stops_sending_is_refused",
    ),
    Mutant(
        BODIES,
        "left = GRACE + len(body) / SLOWEST - (time.monotonic() - start)",
        "left = GRACE",
        f"{TESTS}::test_a_body_that_keeps_its_pace_may_take_long",
    ),
    Mutant(CALLS, "bool(-early < age < late + early and verify", "bool(verify", OLD),
    Mutant(CALLS, 'and verify(load(key), said.encode("ascii"), given)', "", KEY),
    Mutant(CALLS, "SMALL = 1 << 16", "SMALL = 1 << 25", SIZE),
    Mutant(CONNECTIONS, "if now - since >= PATIENCE", "if False", IDLE),
    Mutant(CONNECTIONS, "if len(self._strangers) > MOST_STRANGERS:", "if False:", BUSIEST),
    Mutant(CONNECTIONS, "if at[0] == host", "", BUSIEST),
    Mutant(
        CONNECTIONS,
        "if len(mine) > MOST_OF_A_KEY:",
        "if False:",
        f"{TESTS}::test_a_key_has_a_few_connections_and_loses_its_own_oldest",
    ),
]
