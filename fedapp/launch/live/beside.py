"""The live page beside a run: its server is a process of its own, and ends with the program that started it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedapp.common.errors import FederationError

__all__ = ["live_page"]

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 10.0  # seconds to end


@contextmanager
def live_page(directory: Path, *, port: int = 0) -> Iterator[str]:
    """The page's address, while it is served. Raises FederationError where it cannot be."""
    command = [sys.executable, "-m", "fedapp.launch.live.live_server", str(directory), "--port", str(port)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        if not address:
            raise FederationError(f"the live page could not be served: its program ended with {process.wait()}")
        yield address
    finally:
        with suppress(OSError):
            process.stdin.close()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
