"""This side of the process that reads what others have encrypted."""

import os
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fedapp.aggregation.bfv.parameters import Parameters
from fedapp.aggregation.bfv.seal_worker import read_parts, write_parts
from fedapp.aggregation.helper.carrier import CRASHED
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError

__all__ = ["BfvProcess"]

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 600.0  # seconds for one request


class BfvProcess:
    """For `count` ciphertexts. `context`: with the secret key where it is to decrypt. Raises ProtocolError for what
    SEAL refuses, and where the process has ended."""

    def __init__(self, parameters: Parameters, context: bytes, count: int) -> None:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fedapp.aggregation.bfv.seal_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        numbers = (parameters.degree, parameters.modulus, count, parameters.most_bytes, *parameters.primes)
        try:
            self.ask(b"context", [context, struct.pack(f">{len(numbers)}q", *numbers)])
        except ProtocolError:
            self.close()
            raise

    def ask(self, what: bytes, parts: Sequence[bytes | memoryview] = ()) -> list[bytes]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        timer = threading.Timer(PATIENCE, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            write_parts(stdin, [what, *parts])  # type: ignore[arg-type]
            state, *found = read_parts(stdout)  # type: ignore[arg-type]
        except (EOFError, OSError, ValueError):
            raise ProtocolError(CRASHED, f"the process that reads ciphertexts has ended ({what.decode()})") from None
        finally:
            timer.cancel()
        if state != b"ok":
            raise ProtocolError("forged", found[0].decode(errors="replace"))
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # what was still to be written to it
                if stream is not None:
                    stream.close()
