"""Trying mutants: each on its own, in a copy of the checkout, by the tests that must fail."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from mutants.mutant import Mutant

__all__ = ["copy_checkout", "outcome", "run_tests"]

FAILED, NOTHING_RUN = 1, 5  # exit codes of pytest
PATIENCE = 60.0  # seconds a mutant may take beyond five times what its tests take


def copy_checkout(root: Path, place: Path) -> Path:
    """All files of a checkout that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=root, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (root / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, place / name)
    return place


def run_tests(root: Path, tests: Iterable[str], timeout: float | None = None) -> tuple[int | None, str]:
    """The exit code of pytest, None where it took longer than `timeout` seconds, and its last lines."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *sorted(set(tests))]
    # A changed file of the same length within a second would run from the bytecode of the old one.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        return None, ""
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what its tests may have left, too
        process.wait()
    return process.returncode, "\n".join(output.decode(errors="replace").splitlines()[-15:])


def outcome(root: Path, mutant: Mutant, seconds: float) -> tuple[str, float]:
    """`killed`, `survived`, or why nothing is known, and the seconds it took. `root`: a copy, restored afterwards.
    `seconds`: what the test takes without the change."""
    path, start = root / mutant.file, time.monotonic()
    before = path.read_bytes()
    try:
        mutant.apply(root)
        code, said = run_tests(root, [mutant.test], 5 * seconds + PATIENCE)
    finally:
        path.write_bytes(before)
    took = time.monotonic() - start
    if code is None:
        return "killed (does not end)", took
    if code == FAILED:
        return "killed", took
    return ("survived" if code == 0 else f"not tried: pytest ended with {code}\n{said}"), took


def chosen(names: Sequence[str], mutants: dict[str, list[Mutant]]) -> list[Mutant]:
    """Those of the named modules, files or tests; all for no name."""
    return [
        mutant
        for module, those in mutants.items()
        for mutant in those
        if not names or any(name == module or name in mutant.file or name in mutant.test for name in names)
    ]
