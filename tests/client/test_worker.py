"""The warm worker: the same replies as without it, for its owner only, and nothing lost when it is not there."""

import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from commands import PATIENCE, ROOT
from deployed import wait_for
from flwr.app import Context, RecordDict
from in_process import InProcessGrid, make_context, run_on

from fedapp.client import handlers
from fedapp.client.worker import __main__ as warm
from fedapp.client.worker import ask as thin
from fedapp.client.worker.ask import FOLDER, START_REQUEST, ask, failed_mark, socket_path
from fedapp.deploy.workers import Workers
from fedapp.launch.local_superlink import flower_environment
from fedapp.wire.preflight import unpack_preflight

QUICK = (
    "model=logistic_regression federation.num_clients=4 federation.num_rounds=2 partition=iid"
    " federation.fraction_train=1"
)
NODE = {"partition-id": 0, "num-partitions": 2}


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where sockets are looked for: a short path, as sockets need."""
    with tempfile.TemporaryDirectory(prefix="fa-") as place:
        monkeypatch.setenv(FOLDER, place)
        yield Path(place)


@pytest.fixture
def worker(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A worker in a thread of this process; its socket."""
    monkeypatch.setattr(warm, "POLL", 0.05)
    path = socket_path(folder, ROOT)
    thread = threading.Thread(target=warm.serve, args=(path,))
    thread.start()
    wait_for(path.exists, lambda: "no socket")
    yield path
    monkeypatch.setattr(os, "getppid", lambda: -1)  # as if who started it had gone
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert not path.exists()


def context(overrides: str = QUICK) -> Context:
    return make_context(100, dict(NODE), overrides)


def test_it_replies_as_the_handlers_do(worker: Path) -> None:
    found, alone = ask("query", RecordDict(), context()), handlers.handle("query", RecordDict(), context())
    assert found is not None
    assert unpack_preflight(found).num_examples == unpack_preflight(alone).num_examples
    assert found == alone


@pytest.mark.slow
def test_a_whole_run_is_handled_by_it_and_gives_the_same_model(worker: Path, tmp_path: Path) -> None:
    """Under differential privacy, whose ledger is in the context's state: that comes back, too."""
    private = f"{QUICK} privacy=dp_sgd train.val_fraction=0 federation.final_evaluation=false"
    handle = warm.handle
    kinds = []

    def counted(kind: str, content: RecordDict, given: Context) -> RecordDict:
        kinds.append(kind)
        return handle(kind, content, given)

    warm.handle = counted  # type: ignore[attr-defined]
    try:
        with_worker = run_on(InProcessGrid(QUICK), tmp_path / "warm", QUICK)
        assert kinds.count("train") == 4
        assert kinds.count("evaluate") == 2
        grid = InProcessGrid(private)
        run_on(grid, tmp_path / "private", private)
    finally:
        warm.handle = handle  # type: ignore[attr-defined]
    os.environ.pop(FOLDER)
    without = run_on(InProcessGrid(QUICK), tmp_path / "cold", QUICK)
    digests = [json.loads((run / "summary.json").read_text())["model_sha256"] for run in (with_worker, without)]
    assert digests[0] == digests[1]
    assert json.loads((tmp_path / "private" / "summary.json").read_text())["epsilon_max"] > 0
    assert any(len(given.state) for given in grid.contexts.values())  # the ledgers, back with who keeps them


def test_an_error_is_told_as_it_would_be_without_it(worker: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^KeyError \(see the client's log\)$"):
        ask("train", RecordDict(), context())


def test_its_socket_is_for_its_owner_only(worker: Path) -> None:
    assert stat.S_IMODE(worker.stat().st_mode) == 0o600


def test_noise_on_its_socket_does_not_end_it(worker: Path) -> None:
    for noise in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, b"\0" * 24, warm_lengths(2, 1, 1) + b"{}xx"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(worker))
            connection.sendall(noise)
    assert ask("query", RecordDict(), context()) is not None


def warm_lengths(*lengths: int) -> bytes:
    from fedapp.client.worker.frames import LENGTHS

    return LENGTHS.pack(*lengths)


def test_without_one_a_start_is_requested_and_the_message_is_handled_here(folder: Path) -> None:
    assert ask("query", RecordDict(), context()) is None
    (request,) = folder.iterdir()
    assert request == socket_path(folder, ROOT).with_suffix(START_REQUEST)
    assert Path(request.read_text()) == ROOT
    (reply,) = InProcessGrid(QUICK, 1)._answer(query())  # type: ignore[misc,union-attr]
    assert unpack_preflight(reply.content).num_examples


def query() -> object:
    from flwr.app import Message

    return Message(RecordDict(), 100, "query")


@pytest.mark.parametrize("how", ["hangs up", "replies nonsense"])
def test_one_that_goes_wrong_is_done_without(how: str, folder: Path) -> None:
    path = socket_path(folder, ROOT)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 20)
                if how == "replies nonsense":
                    connection.sendall(b"\xff" * 64)

        thread = threading.Thread(target=serve)
        thread.start()
        given = context()
        assert ask("query", RecordDict(), given) is None
        thread.join()
    assert not given.state
    assert path.with_suffix(START_REQUEST).exists()


def test_a_folder_that_others_can_enter_is_not_used(worker: Path) -> None:
    assert ask("query", RecordDict(), context()) is not None
    worker.parent.chmod(0o755)
    assert ask("query", RecordDict(), context()) is None
    worker.parent.chmod(0o700)
    assert ask("query", RecordDict(), context()) is not None


def test_another_runs_code_is_not_handled_by_it(worker: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(thin, "ROOT", tmp_path)
    assert ask("query", RecordDict(), context()) is None


@contextmanager
def tended(said: list[str], monkeypatch: pytest.MonkeyPatch, **environment: str) -> Iterator[Path]:
    """Workers beside a SuperNode, tended as its script does; the folder of their sockets."""
    with tempfile.TemporaryDirectory(prefix="fa-") as state:
        workers = Workers(Path(state), {**flower_environment(Path(state)), **environment}, said.append)
        monkeypatch.setenv(FOLDER, workers.environment[FOLDER])
        done = threading.Event()

        def tend() -> None:
            while not done.wait(0.2):
                workers.tend()

        thread = threading.Thread(target=tend)
        thread.start()
        try:
            yield Path(workers.environment[FOLDER])
        finally:
            done.set()
            thread.join()
            workers.stop()
        assert not beside(Path(workers.environment[FOLDER]))


@pytest.mark.slow
def test_it_is_started_on_request_and_again_when_it_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message that requests it waits, and is handled by it."""
    said: list[str] = []
    with tended(said, monkeypatch) as folder:
        for _ in range(2):
            assert ask("query", RecordDict(), context()) is not None, said
            (process,) = running(folder)
            process.kill()
            process.wait()


def test_one_that_cannot_start_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    waits: list[bool] = []  # whether each ended because of what was waited for, and not by its deadline
    comes = thin._comes

    def noting(what: Callable[[], bool], seconds: float) -> bool:
        waits.append(comes(what, PATIENCE))
        return waits[-1]

    monkeypatch.setattr(thin, "_comes", noting)
    with tended(said, monkeypatch, PYTHONHOME="/nowhere") as folder:  # so its Python ends at once
        assert ask("query", RecordDict(), context()) is None
        assert waits == [True, True]
        assert failed_mark(socket_path(folder, ROOT)).exists()
        assert ask("query", RecordDict(), context()) is None
        assert waits == [True, True]  # there was no third one
        assert not list(folder.glob(f"*{START_REQUEST}"))
    assert sum("did not start" in line for line in said) == 1


def beside(folder: Path) -> list[psutil.Process]:
    """What is kept ready there: workers, and the process that is copied for messages."""
    return [p for p in psutil.Process().children() if any(str(folder) in argument for argument in p.cmdline())]


def running(folder: Path) -> list[psutil.Process]:
    return [p for p in beside(folder) if "fedapp.client.worker" in p.cmdline()]


TASK = "data=csv data.label=ill data.numeric=[age] data.categorical={} data.classes=[no,yes] model=logistic_regression"


def write_table(path: Path, rows: int) -> Path:
    lines = ["age,ill"] + [f"{30 + i},{'yes' if i % 3 else 'no'}" for i in range(rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.slow
def test_what_a_message_imports(tmp_path: Path) -> None:
    """The thin side imports nothing that takes seconds; the handlers only what this task needs."""
    node = {"data-path": str(write_table(tmp_path / "table.csv", 30)), "partition-id": 0}
    code = f"""
import sys
import fedapp.client_app
print(sorted({{"torch", "hydra"}} & sys.modules.keys()))
from flwr.app import Context, RecordDict
from fedapp.client.handlers import handle
from fedapp.wire.preflight import unpack_preflight
given = Context(run_id=1, node_id=1, node_config={node!r}, state=RecordDict(), run_config={{"overrides": {TASK!r}}})
print(unpack_preflight(handle("query", RecordDict(), given)).num_examples)
print(sorted({{"flwr_datasets", "matplotlib", "opacus", "peft", "torchvision", "tensorboard"}} & sys.modules.keys()))
"""
    environment = {name: value for name, value in os.environ.items() if name != FOLDER}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "(27,)", "[]"]


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    table = write_table(tmp_path / "table.csv", 30)
    given = make_context(100, {"data-path": str(table), "partition-id": 0}, TASK)
    before = unpack_preflight(handlers.handle("query", RecordDict(), given)).num_examples
    write_table(table, 20)
    after = unpack_preflight(handlers.handle("query", RecordDict(), given)).num_examples
    assert (before, after) == ((27,), (18,))
