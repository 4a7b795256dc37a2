"""Keys, folders, and the gateway."""

from mutants.mutant import Mutant

__all__ = ["MUTANTS"]

ADMISSION = "fedapp/deploy/admission.py"
ADMITTED = "tests/deploy/test_admission.py"
PROVISION = "tests/deploy/test_provision.py"

MUTANTS = [
    Mutant(
        ADMISSION,
        "and site_of(node.name) not in unreadable",
        "",
        f"{ADMITTED}::test_a_malformed_key_stops_no_removal",
    ),
    Mutant(
        ADMISSION, "if key in revoked:", "if False:", f"{ADMITTED}::test_a_revoked_key_that_came_back_stops_nobody_else"
    ),
    Mutant(
        ADMISSION, "            continue\n", "            raise\n", f"{ADMITTED}::test_a_malformed_key_stops_no_removal"
    ),
    Mutant(
        ADMISSION,
        "    except Exception as error:  # whatever Flower raises, it is about this site",
        "    except ValueError as error:",
        f"{ADMITTED}::test_a_call_that_fails_stops_no_other",
    ),
    Mutant(
        "fedapp/deploy/superlink.py",
        "(found == self._tried and self._clock() < self._due)",
        "found == self._tried",
        f"{ADMITTED}::test_what_failed_is_tried_again",
    ),
    Mutant(
        "fedapp/deploy/folders.py",
        "            path.chmod(0o700)\n",
        "            pass\n",
        f"{PROVISION}::test_a_folder_that_others_can_enter_is_closed_to_them",
    ),
    Mutant(
        "fedapp/deploy/folders.py",
        "    path.chmod(0o600)\n",
        "",
        f"{PROVISION}::test_the_database_is_private_whatever_it_was",
    ),
    Mutant(
        "fedapp/deploy/folders.py",
        "    if mode & 0o077:\n",
        "    if False:\n",
        f"{PROVISION}::test_a_key_that_others_can_read_is_not_used",
    ),
    Mutant(
        "fedapp/deploy/superlink.py",
        'str(make_private_file(self._state / "superlink.db"))',
        'str(self._state / "superlink.db")',
        f"{PROVISION}::test_a_superlink_has_a_private_database_from_its_start",
    ),
    Mutant(
        "fedapp/config/saved_config.py",
        "if isinstance(event, yaml.AliasEvent):",
        "if False:",
        "tests/inference/test_saved.py::test_yaml_with_aliases_is_not_read",
    ),
    Mutant(
        "fedapp/deploy/register.py",
        "        self.undone = True\n",
        "",
        f"{PROVISION}::test_where_the_superlinks_folder_is_elsewhere_the_old_key_still_counts",
    ),
]
