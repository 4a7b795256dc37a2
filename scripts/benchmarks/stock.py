"""Flower's own way as one command: a SuperLink, `flwr run` of the stock app in it, and the end of both.

    python -m benchmarks.stock PLACE

It gets what fedapp's own command gives itself: a worker for every core, and no environment made for the run.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # not by PYTHONPATH, which Flower's processes inherit

from fedapp.launch.superlink import CONNECTION, LocalSuperLink

__all__ = ["flwr_run", "main"]

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


def main(place: Path) -> int:
    clients, cores = json.loads((place / "work.json").read_text())["clients"], os.cpu_count() or 1
    superlink = LocalSuperLink()
    try:
        superlink.start()
        superlink.wait_until_ready()
        simulation = f"num-supernodes={clients} client-resources-num-cpus=1 init-args-num-cpus={cores}"
        return flwr_run(place, superlink.connection.environment, simulation)
    finally:
        superlink.stop()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
