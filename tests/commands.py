"""Flower's commands and scripts/run.py, called as a person calls them."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedapp.launch.local_superlink import CONNECTION, LocalSuperLink

ROOT = Path(__file__).parents[1]
PATIENCE = 480  # seconds; on a busy machine with a cold disk a run has taken three minutes to start


def copy_of_this_checkout(target: Path) -> Path:
    for name in ("fedapp", "conf", "scripts"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target / name)
    return target


@dataclass(frozen=True)
class Finished:
    """What a command printed (both streams) and how it ended."""

    output: str
    code: int

    @property
    def run_dir(self) -> Path:
        last = self.output.strip().splitlines()[-1]
        assert last.startswith("run_dir="), self.output
        return Path(last.removeprefix("run_dir="))

    @property
    def summary(self) -> dict[str, Any]:
        return dict(json.loads((self.run_dir / "summary.json").read_text()))


def run_script(*arguments: str, cwd: Path, root: Path = ROOT, timeout: float = PATIENCE) -> Finished:
    """`python scripts/run.py ...` from `cwd`."""
    command = [sys.executable, str(root / "scripts" / "run.py"), *arguments]
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)
    return Finished(done.stdout + done.stderr if done.returncode else done.stdout, done.returncode)


@dataclass(frozen=True)
class Flower:
    """`flwr` commands against a SuperLink of these tests' own."""

    superlink: LocalSuperLink

    def __call__(self, *arguments: str, cwd: Path = ROOT) -> str:
        command = ["flwr", *arguments]
        environment = self.superlink.environment
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=PATIENCE)
        return done.stdout + done.stderr

    def run(self, overrides: str, *, supernodes: int = 1, app: Path = ROOT) -> tuple[str, str]:
        """What `flwr run --stream` printed, and the status that Flower gives the run. Workers: two at most."""
        workers = min(supernodes, 2)
        output = self(
            *("run", str(app), CONNECTION, "--stream", "--run-config", f"overrides={json.dumps(overrides)}"),
            *(
                "--federation-config",
                f"num-supernodes={supernodes} client-resources-num-cpus=1 init-args-num-cpus={workers}",
            ),
        )
        runs = json.loads(self("ls", CONNECTION, "--format", "json"))["runs"]
        newest = max(runs, key=lambda run: run["pending-at"])
        return output, newest["status"]
