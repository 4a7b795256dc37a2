"""The warm worker's socket."""

from mutants.mutant import Mutant

__all__ = ["MUTANTS"]

TESTS = "tests/client/test_worker.py"

MUTANTS = [
    Mutant(
        "fedapp/client/worker/__main__.py",
        "before = os.umask(0o177)",
        "before = os.umask(0o022)",
        f"{TESTS}::test_its_socket_is_for_its_owner_only",
    ),
    Mutant(
        "fedapp/client/worker/ask.py",
        "return found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077",
        "return found.st_uid == os.getuid()",
        f"{TESTS}::test_a_folder_that_others_can_enter_is_not_used",
    ),
    Mutant(
        "fedapp/client/worker/__main__.py",
        "except (OSError, ValueError, KeyError, TypeError) as error:",
        "except OSError as error:",
        f"{TESTS}::test_noise_on_its_socket_does_not_end_it",
    ),
    Mutant(
        "fedapp/client/worker/ask.py",
        "except (OSError, ValueError, KeyError):",
        "except OSError:",
        f"{TESTS}::test_one_that_goes_wrong_is_done_without",
    ),
]
