"""What a device keeps of a run over a restart of its SuperNode: the residual of its updates, and the last models."""

from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message, RecordDict
from in_process import InProcessGrid, run_on
from safetensors.torch import load_file
from secure_runs import lines, summary

from fedapp import client_app
from fedapp.client import handlers
from fedapp.client.received_models import FolderModels
from fedapp.client.run_folders import RunFolders
from fedapp.common.state_digest import state_sha256

pytestmark = pytest.mark.slow

TASK = (
    "data=csv data.label=ill data.numeric=[age] data.categorical={sex:[f,m]} data.classes=[no,yes] data.scaling=none"
    " model=mlp model.hidden=[16] federation.num_rounds=4 federation.fraction_train=1 federation.wait_timeout=1"
    " federation.min_clients=2 federation.final_evaluation=false"
)
TOP_K = f"{TASK} compression=top_k compression.share=0.2"
DOWN = f"{TASK} downlink=differences"


def devices(place: Path, *, keep: bool = True, **more: Any) -> list[dict[str, Any]]:
    found = []
    for number in range(2):
        site = place / f"site-{number}"
        site.mkdir(parents=True, exist_ok=True)
        rows = "".join(f"{30 + i + number},{'fm'[i % 2]},{['no', 'yes'][i % 3 == 0]}\n" for i in range(40))
        (site / "data.csv").write_text("age,sex,ill\n" + rows)
        config = {"data-path": str(site / "data.csv"), "partition-id": number, **more}
        found.append(config | ({"keep-path": str(site / "keep")} if keep else {}))
    return found


def go(place: Path, name: str, overrides: str, *, restarts: bool, keep: bool = True) -> tuple[Path, InProcessGrid]:
    """With `restarts` a SuperNode loses before each message whatever is not in its folder."""

    def anew(message: Message, context: Any) -> Message:
        handlers._run.cache_clear()
        context.state = RecordDict()
        return client_app.app(message, context)

    handlers._run.cache_clear()
    app: dict[str, Any] = {"app": anew} if restarts else {}
    grid = InProcessGrid(overrides, node_configs=devices(place / name, keep=keep), **app)
    return run_on(grid, place / f"run-{name}", overrides), grid


def brought(grid: InProcessGrid) -> list[int | None]:
    """How many differences each message to train of SuperNode 100 brings; None for a whole model."""
    asked = [m for m in grid.sent if m.metadata.message_type == "train" and m.metadata.dst_node_id == 100]
    found = [message.content.array_records.get("differences") for message in asked]
    return [None if record is None else len(record) for record in found]


def sha256(directory: Path) -> str:
    return str(summary(directory)["model_sha256"])


# --- residuals ----------------------------------------------------------------------------------------------------


def test_a_residual_outlasts_its_supernode(tmp_path: Path) -> None:
    """The same model as without restarts; and another one where there is no folder for it."""
    steady, _ = go(tmp_path, "steady", TOP_K, restarts=False)
    restarted, _ = go(tmp_path, "restarted", TOP_K, restarts=True)
    homeless, _ = go(tmp_path, "homeless", TOP_K, restarts=True, keep=False)
    assert sha256(restarted) == sha256(steady) != sha256(homeless)
    (run,) = (tmp_path / "restarted" / "site-0" / "keep" / "steps").iterdir()
    kept = sorted(run.iterdir())
    assert kept[-1].name == "round-00004.safetensors"
    assert kept[-1].stat().st_mode & 0o777 == 0o600
    residual = load_file(kept[-1])["top_k/residual"]
    assert residual.abs().max() > 0
    assert int((residual == 0).sum()) < len(residual)


def test_each_run_has_a_residual_of_its_own(tmp_path: Path) -> None:
    """One of another model would be an error of the next run."""
    given = TOP_K.replace("num_rounds=4", "num_rounds=2")
    handlers._run.cache_clear()
    for number, hidden in enumerate(("[16]", "[8]")):
        overrides = given.replace("hidden=[16]", f"hidden={hidden}")
        directory = run_on(InProcessGrid(overrides, node_configs=devices(tmp_path)), tmp_path / str(number), overrides)
        assert not [row for row in lines(directory, "clients.jsonl") if row.get("rejected")]
    assert len(list((tmp_path / "site-0" / "keep" / "steps").iterdir())) == 2


# --- models -------------------------------------------------------------------------------------------------------


def test_the_last_model_outlasts_its_supernode(tmp_path: Path) -> None:
    whole, _ = go(tmp_path, "steady", DOWN, restarts=False)
    restarted, grid = go(tmp_path, "restarted", DOWN, restarts=True)
    assert brought(grid) == [None, 1, 1, 1]
    assert sha256(restarted) == sha256(whole)
    (run,) = (tmp_path / "restarted" / "site-0" / "keep" / "received").iterdir()
    files = list(run.iterdir())
    assert len(files) == 2
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)
    assert all(state_sha256(load_file(path)) == path.stem for path in files)
    assert (tmp_path / "restarted" / "site-0" / "keep" / "trained" / run.name).exists()


def test_a_device_without_a_folder_gets_the_whole_after_a_restart(tmp_path: Path) -> None:
    directory, grid = go(tmp_path, "homeless", DOWN, restarts=True, keep=False)
    assert brought(grid) == [None, 1, None, 1, None, 1, None]  # each time asked for in the same round
    assert not [row for row in lines(directory, "clients.jsonl") if row.get("rejected")]
    assert sha256(directory) == sha256(go(tmp_path, "steady", DOWN, restarts=False)[0])


def test_a_damaged_model_is_asked_for_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = FolderModels(tmp_path / "received")
    models = [{"w": torch.full((3,), float(number))} for number in range(4)]
    names = [state_sha256(model) for model in models]
    for name, model in zip(names, models, strict=True):
        store.keep(name, model)
    assert store.of(names[0]) is None
    assert {path.stem for path in (tmp_path / "received").iterdir()} == set(names[2:])
    path = tmp_path / "received" / f"{names[3]}.safetensors"
    path.write_bytes(path.read_bytes()[:20])
    assert store.of(names[3]) is None
    assert "is damaged" in caplog.text
    assert not path.exists()
    found = store.of(names[2])
    assert found is not None
    assert torch.equal(found["w"], models[2]["w"])


def test_a_run_in_which_nothing_was_trained_takes_no_room_of_others(tmp_path: Path) -> None:
    """Its models are of messages to evaluate alone."""
    folders = RunFolders(tmp_path, 3000)
    for run, trains in (("a" * 16, True), ("b" * 16, False)):
        if trains:
            folders.note_training(run)
        target = tmp_path / "received" / run
        target.mkdir(parents=True)
        (target / "x.safetensors").write_bytes(b"0" * 2000)
    with pytest.raises(Exception, match="leaves no room"):
        folders.make_room("received", "c" * 16, 2000)
    assert (tmp_path / "received" / ("a" * 16)).exists()


def test_more_disk_than_the_operator_allows_is_refused_before_round_1(tmp_path: Path) -> None:
    large = DOWN.replace("model.hidden=[16]", "model.hidden=[300,300]")
    for overrides, clients in ((large.replace(" downlink=differences", ""), 2), (large, 0)):
        handlers._run.cache_clear()
        grid = InProcessGrid(overrides, node_configs=devices(tmp_path / str(clients), **{"max-disk-mb": 2}))
        if clients:
            run_on(grid, tmp_path / f"run-{clients}", overrides)
        else:
            with pytest.raises(Exception, match=r"downlink.*operator allows less"):
                run_on(grid, tmp_path / f"run-{clients}", overrides)
