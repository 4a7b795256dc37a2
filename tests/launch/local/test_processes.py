"""A process that is forked: what it prints, what its own children tell it, and when it ends."""

import subprocess
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[3]
START = f"""
import os, signal, subprocess, sys, time
sys.path.insert(0, {str(ROOT)!r})
from fedapp.launch.local.processes import fork, write_output_to
"""


def program(body: str, **streams: int) -> subprocess.Popen[str]:
    """Its output goes to a pipe, as it does in a batch job, so that Python buffers it."""
    environment = {"PATH": "/usr/bin:/bin"}
    return subprocess.Popen(
        [sys.executable, "-c", START + body],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        **streams,
    )


def test_what_it_prints_is_there_though_it_is_killed(tmp_path: Path) -> None:
    with program(f"""
def work(connection):
    write_output_to(os.open({str(tmp_path / "log")!r}, os.O_CREAT | os.O_WRONLY))
    print("seen \\udcff")
    os.kill(os.getpid(), signal.SIGKILL)

sys.stdout.write("once")
fork("worker", work).recv(1)
""") as process:
        output, _ = process.communicate(timeout=30)
    assert output == "once"  # what lay in the buffer is not printed by both
    assert (tmp_path / "log").read_text() == "seen \\udcff\n"


def test_its_own_children_tell_how_they_ended() -> None:
    with program("""
def work(connection):
    connection.sendall(bytes([subprocess.run(["false"]).returncode]))

print(fork("worker", work).recv(1))
""") as process:
        assert process.communicate(timeout=30)[0] == "b'\\x01'\n"


def test_it_ends_with_the_process_that_it_works_for_and_has_a_name() -> None:
    with program("""
def work(connection):
    time.sleep(600)

held = fork("fedapp-worker", work)
print("ready", flush=True)
time.sleep(600)
""") as process:
        assert process.stdout is not None
        process.stdout.readline()
        (child,) = psutil.Process(process.pid).children()
        while child.name() != "fedapp-worker":
            pass
        process.kill()
    assert not psutil.wait_procs([child], timeout=10)[1]
