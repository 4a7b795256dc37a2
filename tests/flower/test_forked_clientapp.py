"""The process that is copied for each of a SuperNode's messages, asked as the SuperNode asks it."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedapp.flower import ask_clientapp, forked_clientapp

SERVE = """
import runpy, sys
runpy.run_path = lambda path: {"command": lambda: command}
import numpy, random, os
def command():
    what = sys.argv[1]
    if what == "show":
        print(sys.argv[0], *map(repr, sys.argv[2:]), random.random(), numpy.random.rand(), os.getpid())
        print("to the other stream", file=sys.stderr)
    elif what == "die":
        os.kill(os.getpid(), 9)
    elif what == "raise":
        raise KeyError("what went wrong")
    elif what != "end":
        sys.exit(int(what))
sys.argv = ["x", sys.argv[1]]
exec(compile(open(PROGRAM).read(), PROGRAM, "exec"), {"__name__": "__main__", "__file__": PROGRAM})
"""


def ask(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-I", "-S", ask_clientapp.__file__, str(path), *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=120)


@contextmanager
def copied() -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A process whose copies do what their first argument says instead of Flower's command; its socket."""
    with tempfile.TemporaryDirectory(prefix="fa-") as folder:
        path = Path(folder) / "s.sock"
        code = f"PROGRAM = {forked_clientapp.__file__!r}\n{SERVE}"
        process = subprocess.Popen([sys.executable, "-P", "-c", code, str(path)])
        try:
            wait_for(path.exists)
            yield path, process
        finally:
            process.kill()
            process.wait()


def wait_for(what: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_copies_end_as_the_message_does_and_print_where_it_would() -> None:
    with copied() as (path, process):
        shown = [ask(path, "show", "a b", "", "ü\n") for _ in range(2)]
        assert [(done.returncode, done.stderr) for done in shown] == [(0, "to the other stream\n")] * 2
        first, second = (done.stdout.split() for done in shown)
        assert first[:5] == second[:5] == ["flwr-clientapp", "'a", "b'", "''", "'ü\\n'"]
        for mine, other in zip(first[5:], second[5:], strict=True):  # random numbers, and a process of its own
            assert mine != other
        assert str(process.pid) not in (first[-1], second[-1])
        assert [ask(path, what).returncode for what in ("end", "0", "7", "die")] == [0, 0, 7, 1]
        failed = ask(path, "raise")
        assert failed.returncode == 1
        assert "KeyError: 'what went wrong'" in failed.stderr
        assert process.poll() is None


@pytest.mark.parametrize("line", [b"", b"\0\0", b"\0\0\0\5abc", b"\xff\xff\xff\xff" + b"a" * 70_000], ids=str.__call__)
@pytest.mark.parametrize("streams", [0, 2])
def test_what_is_no_request_is_passed_over(line: bytes, streams: int) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    ours.settimeout(5.0)
    before = len(os.listdir("/proc/self/fd"))
    if line and streams:
        socket.send_fds(theirs, [line[:4]], [1, 2])
        theirs.sendall(line[4:])
    else:
        theirs.sendall(line)
    theirs.close()
    with pytest.raises(ValueError, match="no request"):
        forked_clientapp.request(ours)
    assert len(os.listdir("/proc/self/fd")) == before - 2  # both ends, and nothing that came with it


@pytest.mark.slow
def test_it_ends_with_who_started_it() -> None:
    with tempfile.TemporaryDirectory(prefix="fa-") as folder:
        path = Path(folder) / "s.sock"
        code = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-P', {forked_clientapp.__file__!r},"
        code += f" {str(path)!r}], stdout=subprocess.DEVNULL).pid, flush=True); sys.stdin.read()"
        parent = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
        )
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_for(path.exists)
        assert "--runtime-api-address" in ask(path, "--help").stdout  # Flower's command
        parent.send_signal(signal.SIGKILL)
        parent.communicate()
        wait_for(lambda: not path.exists())
        wait_for(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2])


def test_without_it_the_message_has_its_own_imports() -> None:
    done = ask(Path("/nowhere/s.sock"), "--help")
    assert done.returncode == 0
    assert "--runtime-api-address" in done.stdout
