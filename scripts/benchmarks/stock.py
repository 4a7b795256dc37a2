"""Flower's own way as one command: `flwr run` of the stock app, the SuperLink that it starts, and the end of both.

    python -m benchmarks.stock PLACE

It gets a worker for every core, and no environment made for the run, which would take 20 s; all else is Flower's.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import IO

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # not by PYTHONPATH, which Flower's processes inherit

from fedapp.common.cores import allowed_cores
from fedapp.launch.guard import Guard
from fedapp.launch.local_superlink import CONNECTION, flower_environment, free_port, write_connection

__all__ = ["flwr_run", "main", "stock_environment"]

APP = Path(__file__).resolve().parent / "stock-app"


def flwr_run(
    place: Path,
    environment: Mapping[str, str],
    federation: str = "",
    *,
    output: IO[bytes] | None = None,
    **changed: str | float,
) -> int:
    """`flwr run` of the stock app on the work in `place`, to its end; the exit status, 1 where it left no result."""
    work = json.loads((place / "work.json").read_text())
    settings = {
        "place": str(place),
        "net": work["model"],
        "num-server-rounds": work["rounds"],
        "fraction-train": work["cohort"] / work["clients"],
        "learning-rate": work["lr"],
        "batch-size": work["batch_size"],
        **changed,
    }
    file = place / "stock.toml"
    file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    command = ["flwr", "run", str(APP), CONNECTION, "--stream", "--run-config", str(file)]
    command += ["--federation-config", federation] if federation else []
    status = subprocess.run(command, env=dict(environment), stdout=output, stderr=output, check=False).returncode
    return status or int(not (place / "stock.jsonl").exists())


def stock_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` without what fedapp does to be quick."""
    return {name: value for name, value in environment.items() if name != "FLWR_SUPEREXEC_TASK_POLL_INTERVAL"}


def main(place: Path) -> int:
    clients, cores = json.loads((place / "work.json").read_text())["clients"], allowed_cores()
    home = Path(mkdtemp(prefix="stock-flwr-"))
    write_connection(home, {"address": ":local:"})
    guard = Guard(home)
    try:
        environment = stock_environment(flower_environment(home))
        environment["FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"] = str(free_port())
        simulation = f"num-supernodes={clients} client-resources-num-cpus=1 init-args-num-cpus={cores}"
        return flwr_run(place, environment, simulation)
    finally:
        guard.end()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
