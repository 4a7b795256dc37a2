"""A federation of real processes on this machine, started by the commands of scripts/deploy."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from commands import PATIENCE, ROOT, Finished

__all__ = ["Deployed", "Running", "call", "command", "family", "program", "wait_for"]


def command(name: str, *arguments: str) -> list[str]:
    return [str(ROOT / "scripts" / "deploy" / name), *arguments]


def wait_for(what: Callable[[], object], why: Callable[[], str], patience: float = PATIENCE) -> None:
    """Until `what` is true. Fails with `why`."""
    deadline = time.monotonic() + patience
    while not what():
        assert time.monotonic() < deadline, why()
        time.sleep(0.1)


def family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def program(process: psutil.Process) -> str:
    """The beginning of its command line; nothing of one that has ended meanwhile."""
    try:
        return " ".join(process.cmdline()[:3])
    except psutil.NoSuchProcess:  # a ZombieProcess is one, too
        return ""


class Running:
    """A command that runs until it is ended, and what it printed."""

    def __init__(self, log: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                arguments, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})}
            )

    @property
    def printed(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        wait_for(lambda: text in self.printed or self.process.poll() is not None, lambda: self.printed)
        assert text in self.printed, self.printed

    def child(self, name: str) -> psutil.Process:
        """The one process below it whose command line names the program `name`."""
        (found,) = [p for p in family(psutil.Process(self.process.pid))[1:] if name in program(p)]
        return found

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it, and see that nothing of it is left."""
        members = family(psutil.Process(self.process.pid)) if self.process.poll() is None else []
        self.process.send_signal(number)
        status = self.process.wait(timeout=PATIENCE)
        assert not psutil.wait_procs(members, timeout=30)[1]
        return status


class Deployed:
    """`root`: the federation's folders. Everything that was started is in `running`, by name."""

    def __init__(self, root: Path, *sites: str) -> None:
        self.root, self.running = root, dict[str, Running]()
        self.provision("--host", "127.0.0.1", "--site", *sites, "--port", str(port()), "--control-port", str(port()))

    def provision(self, *arguments: str) -> Finished:
        return call("provision", str(self.root), *arguments)

    def superlink(self) -> Running:
        started = self.start("superlink", *command("superlink", "--folder", str(self.root / "superlink")))
        started.wait_for("SuperLink ready")
        return started

    def supernode(self, name: str, *arguments: str, folder: Path | None = None) -> Running:
        return self.start(name, *command("supernode", "--folder", str(folder or self.root / name), *arguments))

    def start(self, name: str, *arguments: str) -> Running:
        self.running[name] = Running(self.root.parent / f"{name}.log", *arguments)
        return self.running[name]

    def run(self, *overrides: str) -> Finished:
        return call("run", "--folder", str(self.root / "operator"), *overrides)

    def end(self, *names: str) -> None:
        """End those, of what was started."""
        for name in names:
            running = self.running.pop(name)
            if running.process.poll() is None:
                running.end()


def call(name: str, *arguments: str, cwd: Path | None = None) -> Finished:
    done = subprocess.run(
        command(name, *arguments), cwd=cwd, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL
    )
    return Finished(done.stdout + done.stderr if done.returncode else done.stdout, done.returncode)


def port() -> int:
    from fedapp.launch.local_superlink import free_port

    return free_port()
