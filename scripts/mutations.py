#!/usr/bin/env python3
"""Break the lines that hold the security promises one by one: does a test fail each time?

python scripts/mutations.py                 every line in scripts/mutants/, some seconds each
python scripts/mutations.py limits          those of a module of scripts/mutants/, or of files or tests so called
python scripts/mutations.py --list          what would be changed

The checkout stays as it is: each change is made to a copy, its test is run there, and the copy is restored. The exit
status is 1 if a change was survived, 2 if a test fails without any change.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from mutants import Mutant, every_mutant  # noqa: E402
from mutants.trial import chosen, copy_checkout, outcome, run_tests  # noqa: E402


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="modules of scripts/mutants/, or parts of files' or tests' names")
    parser.add_argument("--list", action="store_true", help="show the changes, and make none")
    given = parser.parse_args(arguments)
    given.mutants = chosen(given.names, every_mutant())
    if not given.mutants:
        parser.error(f"no mutant of {' '.join(given.names)}")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse(arguments)
    if given.list:
        for mutant in given.mutants:
            print(describe(mutant))
        return 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        return try_all(copy_checkout(HERE.parent, Path(place)), given.mutants)


def try_all(root: Path, mutants: Sequence[Mutant]) -> int:
    start = time.monotonic()
    code, said = run_tests(root, [mutant.test for mutant in mutants])
    if code != 0:
        print(f"the tests fail without any change:\n{said}")
        return 2
    print(f"without a change all {len({mutant.test for mutant in mutants})} tests pass")
    seconds, survived = time.monotonic() - start, 0
    for mutant in mutants:
        found, took = outcome(root, mutant, seconds)
        survived += not found.startswith("killed")
        print(f"{found:8} {took:5.1f} s  {describe(mutant)}", flush=True)
    print(f"{len(mutants) - survived} of {len(mutants)} killed")
    return int(survived > 0)


def describe(mutant: Mutant) -> str:
    old, new = (" ".join(text.split()) for text in (mutant.old, mutant.new))
    return f"{mutant.file}: {old}  ->  {new or '(nothing)'}  [{mutant.test}]"


if __name__ == "__main__":
    sys.exit(main())
