"""scripts/deploy/local: the same model as a simulation, and nothing left behind, however it ends."""

import json
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from deployed import Running, call, command, family, program, wait_for
from in_process import run_in_process

pytestmark = pytest.mark.slow

RUN = "model=logistic_regression federation.num_clients=4 partition=iid federation.fraction_train=1"


def ports(members: list[psutil.Process]) -> set[int]:
    found: set[int] = set()
    for member in members:
        with suppress(psutil.Error):  # of one that has ended meanwhile
            found |= {c.laddr.port for c in member.net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN}
    return found


def nobody_listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def left(temporary: Path) -> list[Path]:
    """What is there, but for the cache that all programs with PyTorch share."""
    return [path for path in temporary.iterdir() if not path.name.startswith("torchinductor_")]


@pytest.mark.parametrize(
    ("number", "supernodes"),
    [(None, 2), (signal.SIGTERM, 1), (signal.SIGKILL, 1)],
    ids=["its end", "SIGTERM", "SIGKILL"],
)
def test_nothing_is_left_however_it_ends(number: signal.Signals | None, supernodes: int, tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    rounds = 2 if number is None else 1000
    overrides = [*RUN.split(), f"federation.num_rounds={rounds}", f"run.output_dir={tmp_path / 'run'}"]
    arguments = command("local", "--supernodes", str(supernodes), *overrides)
    local = Running(tmp_path / "local.log", *arguments, environment={"TMPDIR": str(temporary)})
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_for(lambda: metrics.exists() or local.process.poll() is not None, lambda: local.printed)
    members = family(psutil.Process(local.process.pid))
    programs = [program(member) for member in members]
    assert all(any(name in one for one in programs) for name in ("flower-superlink", "flower-supernode"))
    listening = ports(members)
    assert len(listening) >= 2 + supernodes  # gateway, SuperLink and SuperNodes
    if number is not None:
        os.kill(local.process.pid, number)
    status = local.process.wait(timeout=400)
    assert not psutil.wait_procs(members, timeout=30)[1]
    wait_for(lambda: not left(temporary), lambda: str(left(temporary)), patience=30)
    assert all(nobody_listens(port) for port in listening)
    if number is None:
        assert status == 0, local.printed
        assert local.printed.strip().splitlines()[-1] == f"run_dir={tmp_path / 'run'}"
        summary = json.loads((tmp_path / "run" / "summary.json").read_text())
        alone = run_in_process(tmp_path / "alone", f"{RUN} federation.num_rounds=2", num_nodes=2)
        assert summary["model_sha256"] == json.loads((alone / "summary.json").read_text())["model_sha256"]
        assert summary["supernodes"] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--supernodes", "0"], "--supernodes 0: must be at least 1"),
        (["--supernodes", "1", "federation.num_round=3"], "did you mean federation.num_rounds"),
        (["--supernodes", "1", "--data-root", "{place}"], "must hold one site-0 or site-0.*, a site's data"),
    ],
)
def test_refused_before_anything_starts(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = call("local", *(item.format(place=tmp_path) for item in arguments), cwd=tmp_path)
    assert done.code == 2
    assert words in done.output
    assert "Traceback" not in done.output
    assert not list(tmp_path.iterdir())
