"""What a server may name in overrides."""

from mutants.mutant import Mutant

__all__ = ["MUTANTS"]

FILE = "fedapp/config/overrides.py"
HOSTILE = "tests/config/test_hostile_overrides.py"
REFUSED = f"{HOSTILE}::test_a_choice_that_is_no_option_is_refused_before_any_file_is_read"
NO_CODE = "tests/config/test_config.py::test_overrides_cannot_choose_code_or_read_the_environment"
DEEP_CODE = f"{HOSTILE}::test_no_value_of_an_override_holds_code"
ELSEWHERE = f"{HOSTILE}::test_code_of_another_place_is_refused_however_it_got_into_the_config"

MUTANTS = [
    Mutant(FILE, "if named is not None and named not in options:", "if named is None:", REFUSED),
    Mutant(FILE, "    for option in chosen:\n", "    for option in chosen[:1]:\n", REFUSED),
    Mutant(FILE, 'if "/" in key or override.package is not None:', "if False:", REFUSED),
    Mutant(FILE, "        _check_choice(one)\n", "", REFUSED),
    Mutant(FILE, "        _refuse_code(one)\n", "", NO_CODE),
    Mutant(FILE, """if isinstance(value, str) and "${" in value:""", "if False:", NO_CODE),
    Mutant(FILE, 'if str(decoded_key(name)).startswith("_"):', "if False:", DEEP_CODE),
    Mutant(FILE, r"""if re.match(r"hydra\b", key):""", "if False:", NO_CODE),
    Mutant(
        "fedapp/config/compose.py",
        "for place in (key, group))",
        "for place in known)",
        ELSEWHERE,
    ),
    Mutant("fedapp/config/compose.py", "    check_overrides(overrides)\n", "", REFUSED),
    Mutant(
        "fedapp/common/errors.py",
        "return error.abroad if on_device and error.abroad is not None else str(error)",
        "return str(error)",
        f"{HOSTILE}::test_what_is_wrong_with_data_stays_in_the_devices_log",
    ),
    Mutant(
        "fedapp/common/errors.py",
        'abroad = "its node-config does not go with this run (see the client\'s log)"',
        "abroad = None",
        f"{HOSTILE}::test_a_setting_of_the_operators_is_not_repeated_to_the_server",
    ),
    Mutant(
        "fedapp/client/handlers.py",
        'raise RuntimeError(f"{type(error).__name__} (see the client\'s log)") from None',
        "raise RuntimeError(str(error)) from None",
        "tests/client/test_worker.py::test_an_error_is_told_as_it_would_be_without_it",
    ),
]
