"""Every engine, with however many workers, ends with the same model, bit for bit."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from commands import PATIENCE, ROOT
from every_task import EVERY_TASK
from in_process import run_in_process

pytestmark = pytest.mark.slow

SIZES = "federation.num_rounds=2 federation.num_clients=8"
KINDS = {
    "plain": EVERY_TASK["horizontal"],
    "transfer": EVERY_TASK["head"],
    "secure": f"{EVERY_TASK['horizontal']} secure_aggregation=secaggplus",
    "helper": f"{EVERY_TASK['horizontal']} secure_aggregation=helper secure_aggregation.bits=16",
    "heads": f"{EVERY_TASK['personal heads']} partition=pathological",
    "robust": f"{EVERY_TASK['horizontal']} strategy=multi_krum strategy.aggregation.num_malicious=1"
    " federation.fraction_train=1",
    "next token": EVERY_TASK["next token"],
    "next token, secure": f"{EVERY_TASK['next token']} secure_aggregation=secaggplus",
    "seeded noise": f"{EVERY_TASK['horizontal']} privacy=dp_sgd privacy.noise_source=seeded_for_tests",
}


ON_FLOWER = ("plain", "secure", "helper")  # each takes several seconds to start there


def hashes(directory: Path, kinds: Iterable[str] = KINDS) -> dict[str, str]:
    return {
        kind: json.loads((directory / str(number) / "summary.json").read_text())["model_sha256"]
        for number, kind in enumerate(kinds)
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("in-process")
    for number, kind in enumerate(KINDS.values()):
        run_in_process(place / str(number), f"{SIZES} {kind}", num_nodes=3)
    found = hashes(place)
    assert len(set(found.values())) == len(KINDS)
    return found


@pytest.mark.parametrize(("engine", "workers"), [("local", 1), ("local", 2), ("local", 4), ("flower", 2)])
def test_the_model_is_the_same(engine: str, workers: int, expected: dict[str, str], tmp_path: Path) -> None:
    """And the runs of one call are as independent as separate calls."""
    kinds = KINDS if engine == "local" else ON_FLOWER
    runs = [[*SIZES.split(), *KINDS[kind].split()] for kind in kinds]
    command = [sys.executable, str(ROOT / "tests" / "many_runs.py"), str(workers), engine, str(tmp_path)]
    done = subprocess.run(
        command, input=json.dumps(runs), capture_output=True, text=True, cwd=tmp_path, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert hashes(tmp_path, kinds) == {kind: expected[kind] for kind in kinds}
    if engine == "local":
        assert done.stdout.count(f"{workers} worker process") == len(KINDS)
