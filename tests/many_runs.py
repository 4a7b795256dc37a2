"""Runs in one process, as a sweep has them: `python many_runs.py CORES ENGINE DIRECTORY < runs.json`.

The runs come on standard input, a list of lists of overrides; the n-th one goes to DIRECTORY/n. As many as CORES are
said to be allowed.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as scripts/run.py has it
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console

from fedapp.launch import flower_engine
from fedapp.launch.simulate import Launcher

if __name__ == "__main__":
    allowed, engine, place = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    if engine == "local":
        from fedapp.launch.local import engine as module
        from fedapp.launch.local.reports import Reports

        module.allowed_cores = lambda: allowed
        Reports.write = lambda self, directory: None  # each takes a second and more
    flower_engine.allowed_cores = lambda: allowed
    console = Console()
    with Launcher(console) as launcher:
        for number, overrides in enumerate(json.load(sys.stdin)):
            finished = launcher.run([*overrides, f"run.engine={engine}", "run.device=cpu"], place / str(number))
            assert finished.error is None, finished.error
        assert launcher.finish()
