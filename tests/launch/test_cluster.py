"""Simulations on a Ray cluster of several nodes."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import run_script
from in_process import run_in_process

from fedapp.config import compose
from fedapp.launch.flower_engine import federation_config
from fedapp.launch.local_superlink import free_port

OVERRIDES = "federation.num_rounds=2 federation.num_clients=4 run.num_supernodes=2"


def test_ray_is_given_a_number_of_cores_only_where_it_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = compose(["run.num_supernodes=1", "run.device=cpu"])
    assert federation_config(config) == ["num-supernodes=1", "client-resources-num-cpus=1", "init-args-num-cpus=1"]
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert federation_config(config) == ["num-supernodes=1", "client-resources-num-cpus=1"]


def ray(*arguments: str) -> subprocess.Popen[bytes]:
    """A Ray node of one core, as a process that stays in the foreground."""
    command = [str(Path(sys.executable).parent / "ray"), "start", *arguments, "--block", "--num-cpus=1"]
    command += ["--node-ip-address=127.0.0.1", "--disable-usage-stats"]
    output = subprocess.DEVNULL
    return subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)


def alive(address: str) -> int:
    """How many nodes of the cluster are there."""
    program = f"import ray; ray.init('{address}', logging_level=50, log_to_driver=False)\n"
    program += "print('nodes', sum(node['Alive'] for node in ray.nodes()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith("nodes ")]
    return int(found[-1].split()[1]) if found else 0


@pytest.fixture
def cluster() -> Iterator[str]:
    """The address of a cluster of two nodes on this machine."""
    address = f"127.0.0.1:{free_port()}"
    # Paths of sockets must be short, so not below pytest's folder.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        nodes = [
            ray("--head", f"--port={address.partition(':')[2]}", f"--temp-dir={folder}", "--include-dashboard=false")
        ]
        try:
            for _ in range(60):
                if alive(address):
                    break
            nodes.append(ray(f"--address={address}"))
            for _ in range(60):
                if alive(address) == 2:
                    break
            assert alive(address) == 2
            yield address
        finally:
            for node in reversed(nodes):
                os.killpg(node.pid, signal.SIGTERM)
                node.wait(timeout=60)


@pytest.mark.slow
def test_two_nodes_train_the_model_that_one_process_does_and_are_there_afterwards(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = run_in_process(tmp_path / "alone", OVERRIDES)
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    done = run_script(*OVERRIDES.split(), cwd=tmp_path)
    assert done.code == 0, done.output
    assert done.summary["model_sha256"] in (alone / "summary.json").read_text()
    assert done.summary["supernodes"] == 2
    assert alive(cluster) == 2
