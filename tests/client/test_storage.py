"""What a device stores in its own folder: features, its head, the run's result. Nothing of it is sent."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from flwr.app import Message
from in_process import InProcessGrid, run_on
from PIL import Image
from safetensors.torch import load_file
from torchvision.models import get_model

from fedapp import client_app
from fedapp.client import handlers
from fedapp.client.storage import storage_folder
from fedapp.common.errors import ConfigError, FederationError, ModelError
from fedapp.common.seeding import seeded
from fedapp.common.state_digest import state_sha256
from fedapp.data import features
from fedapp.data.features import FeatureFiles
from fedapp.inference.predict import predict
from fedapp.inference.saved import load_run

pytestmark = pytest.mark.slow

BODY = (
    "task=transfer data=image_folder data.size=32 data.classes=[dark,light] task.metrics=auto model=torchvision"
    " model.name=shufflenet_v2_x0_5 model.norm=batch model.pretrained=false model.trainable=head"
    " model.feature_norm=layer federation.num_rounds=2 federation.wait_timeout=1"
)
PERSONAL = (
    "data=image_folder data.size=8 data.channels=1 data.classes=[dark,light] model=mlp federation.personal=head"
    " federation.num_rounds=2 federation.wait_timeout=1"
)


def make_devices(place: Path, *, count: int = 2, keep: bool = True, **more: Any) -> list[dict[str, Any]]:
    """Devices with twenty images each."""
    random = np.random.default_rng(0)
    configs = []
    for number in range(count):
        site = place / f"site-{number}"
        for name, low in (("dark", 0), ("light", 100)):
            (site / "images" / name).mkdir(parents=True, exist_ok=True)
            for i in range(10):
                pixels = random.integers(low, low + 156, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(site / "images" / name / f"{i}.png")
        config: dict[str, Any] = {"data-path": str(site / "images"), "partition-id": number, **more}
        configs.append(config | ({"keep-path": str(site / "keep")} if keep else {}))
    return configs


def go(place: Path, overrides: str, configs: list[dict[str, Any]], name: str = "run") -> tuple[Path, InProcessGrid]:
    handlers._run.cache_clear()  # each run is a process of its own
    grid = InProcessGrid(overrides, node_configs=configs)
    return run_on(grid, place / name, overrides), grid


def summary(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "summary.json").read_text()))


def rejected(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "clients.jsonl").read_text().splitlines()]


def forgetful(place: Path, overrides: str, configs: list[dict[str, Any]], name: str) -> tuple[Path, int]:
    """A run in which every message starts a new process, as on a device; how often features were computed."""
    computed = 0
    real = features.features_of

    def counted(*arguments: Any) -> Any:
        nonlocal computed
        computed += 1
        return real(*arguments)

    def anew(message: Message, context: Any) -> Any:
        handlers._run.cache_clear()
        return client_app.app(message, context)

    with patch.object(features, "features_of", counted):
        grid = InProcessGrid(overrides, node_configs=configs, app=anew)  # type: ignore[arg-type]
        directory = run_on(grid, place / name, overrides)
    return directory, computed


def test_features_are_computed_once_a_device_and_not_once_a_message(tmp_path: Path) -> None:
    configs = make_devices(tmp_path)
    with_files, computed = forgetful(tmp_path, BODY, configs, "with")
    assert computed == 2 * 2  # each device's training and validation split
    files = list((tmp_path / "site-0" / "keep" / "features").iterdir())
    assert len(files) == 2
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)
    without, computed_without = forgetful(tmp_path, BODY, make_devices(tmp_path, keep=False), "without")
    assert computed_without == 2 * 2 * 3  # two rounds and the final evaluation
    assert summary(with_files)["model_sha256"] == summary(without)["model_sha256"]
    _, computed_again = forgetful(tmp_path, BODY, configs, "again")
    assert computed_again == 0


def test_under_augmentation_only_what_never_changes_is_kept(tmp_path: Path) -> None:
    configs = make_devices(tmp_path)
    _, computed = forgetful(tmp_path, f"{BODY} train.augmentation=[horizontal_flip]", configs, "run")
    assert computed == 2  # each device's validation split
    assert len(list((tmp_path / "site-0" / "keep" / "features").iterdir())) == 1


def test_other_data_or_another_backbone_has_other_features(tmp_path: Path) -> None:
    configs, once = make_devices(tmp_path), f"{BODY} federation.num_rounds=1 federation.final_evaluation=false"
    forgetful(tmp_path, once, configs, "first")
    _, computed = forgetful(tmp_path, f"{once} run.seed=1", configs, "backbone")  # random weights
    assert computed == 2 * 2
    image = tmp_path / "site-1" / "images" / "dark" / "0.png"
    Image.fromarray(255 - np.asarray(Image.open(image))).save(image)
    _, computed = forgetful(tmp_path, once, configs, "data")
    assert 1 <= computed <= 2


def test_no_feature_is_sent(tmp_path: Path) -> None:
    _, grid = go(tmp_path, BODY, make_devices(tmp_path))
    shapes = {
        value.shape for m in grid.received for record in m.content.array_records.values() for value in record.values()
    }
    assert shapes == {(2, 1024), (2,)}  # of the head's update, one device a message
    kept = [load_file(path)["features"] for path in tmp_path.glob("site-*/keep/features/*")]
    sent = b"".join(
        value.data for m in grid.received for record in m.content.array_records.values() for value in record.values()
    )
    assert kept
    assert not any(row.numpy().tobytes()[:64] in sent for rows in kept for row in rows)


def test_damaged_features_are_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    configs = make_devices(tmp_path)
    first, _ = go(tmp_path, BODY, configs, "first")
    for path in tmp_path.glob("site-0/keep/features/*"):
        path.write_bytes(path.read_bytes()[:100])
    again, _ = go(tmp_path, BODY, configs, "again")
    assert "computed again" in caplog.text
    assert summary(first)["model_sha256"] == summary(again)["model_sha256"]
    assert all(len(load_file(path)) == 1 for path in tmp_path.glob("site-0/keep/features/*"))


def test_the_folder_stays_within_its_bound(tmp_path: Path) -> None:
    one = torch.zeros(1000)  # 4 kB
    files = FeatureFiles(tmp_path, "backbone", max_bytes=10_000)
    for name in ("a", "b"):
        files.write(f"{name}.safetensors", one)
    assert files.read("a.safetensors") is not None  # used last, so that b goes
    files.write("c.safetensors", one)
    assert {path.stem for path in tmp_path.iterdir()} == {"a", "c"}
    files.write("d.safetensors", torch.zeros(10_000))  # alone too large
    assert {path.stem for path in tmp_path.iterdir()} == {"a", "c"}
    assert files.read("b.safetensors") is None


def test_a_full_disk_costs_time_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "features").write_text("a file where the folder should be")
    FeatureFiles(tmp_path / "features", "backbone", 10_000).write("a.safetensors", torch.zeros(3))
    assert "features cannot be kept" in caplog.text


# --- weights that a device has -----------------------------------------------------------------------------------


class Bomb:
    """In a pickle: leaves a file where it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


def published(*, classes: int = 1000, seed: int = 0) -> dict[str, torch.Tensor]:
    with seeded(seed):
        return dict(get_model("shufflenet_v2_x0_5", weights=None, num_classes=classes).state_dict())


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "another backbone": (lambda path: torch.save(published(seed=1), path), "frozen part of the model is another one"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-1000]) and None, "is no whole file of weights"),
    "wrong hash": (lambda path: torch.save(published(seed=1), path), "it is another file, or was cut short"),
    "another head": (lambda path: torch.save(published(classes=7), path), "another network: it has fc.bias (7,), not"),
    "a pickle": (
        lambda path: torch.save({"fc.bias": Bomb(path.with_name("exploded"))}, path),
        "could run code",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_device_whose_weights_are_not_the_servers_is_left_out_by_name(tmp_path: Path, damage: str) -> None:
    """The file that it has is exchanged; the two others train on without it."""
    spoil, reason = DAMAGES[damage]
    weights, good = tmp_path / "weights.pt", tmp_path / "good.pt"
    torch.save(published(), good)
    shutil.copy(good, weights)
    overrides = f"{BODY.replace('pretrained=false', f'pretrained={weights}')} federation.num_rounds=1"
    if damage == "wrong hash":
        overrides += f" model.weights_sha256={hashlib.sha256(good.read_bytes()).hexdigest()}"

    def with_own_file(message: Message, context: Any) -> Any:
        handlers._run.cache_clear()
        shutil.copy(good, weights)
        if context.node_config["partition-id"] == 1:
            spoil(weights)
        try:
            return client_app.app(message, context)
        finally:
            shutil.copy(good, weights)

    grid = InProcessGrid(overrides, node_configs=make_devices(tmp_path, count=3), app=with_own_file)  # type: ignore[arg-type]
    found = summary(run_on(grid, tmp_path / "run", overrides))
    assert (found["status"], found["clients"]) == ("finished", 2)
    assert list(found["faults"]) == ["SuperNode 101"]
    assert reason in found["faults"]["SuperNode 101"]
    assert not (tmp_path / "exploded").exists()


# --- the run's result -----------------------------------------------------------------------------------------------


def test_every_device_stores_the_result(tmp_path: Path) -> None:
    directory, _ = go(tmp_path, f"{BODY} federation.deliver=true", make_devices(tmp_path))
    assert summary(directory)["delivered"] == 2
    for number in range(2):
        kept = tmp_path / f"site-{number}" / "keep" / "models" / "latest"
        assert state_sha256(load_file(kept / "model.safetensors")) == summary(directory)["model_sha256"]
        assert "shufflenet_v2_x0_5" in (kept / "config.yaml").read_text()
        assert str(tmp_path) not in (kept / "config.yaml").read_text()


def test_without_the_final_evaluation_too_and_only_when_asked_for(tmp_path: Path) -> None:
    configs = make_devices(tmp_path)
    directory, _ = go(tmp_path, BODY, configs, "not asked for")
    assert "delivered" not in summary(directory)
    assert not (tmp_path / "site-0" / "keep" / "models").exists()
    directory, _ = go(tmp_path, f"{BODY} federation.deliver=true federation.final_evaluation=false", configs, "asked")
    assert summary(directory)["delivered"] == 2
    assert not any(name.startswith("final_") for name in summary(directory))


def test_a_device_without_a_folder_is_counted_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    configs = make_devices(tmp_path)
    del configs[1]["keep-path"]
    directory, _ = go(tmp_path, f"{BODY} federation.deliver=true", configs)
    assert summary(directory)["delivered"] == 1
    assert "1 of 2 clients store the result" in caplog.text


def test_the_result_can_be_used_where_it_lies(tmp_path: Path) -> None:
    """With the device's own head, and no server's summary beside it."""
    directory, _ = go(tmp_path, f"{PERSONAL} federation.deliver=true train.local_epochs=30", make_devices(tmp_path))
    for number in range(2):
        saved = load_run(tmp_path / f"site-{number}" / "keep" / "models" / "latest")
        found = predict(saved, [tmp_path / f"site-{number}" / "images"])
        said = [line.split("\t")[1] for line in found.lines()]
        assert said == ["dark"] * 10 + ["light"] * 10
    with pytest.raises(ModelError, match="its clients have their own heads"):
        load_run(directory)


def test_the_result_bears_the_devices_own_head(tmp_path: Path) -> None:
    directory, _ = go(tmp_path, f"{PERSONAL} federation.deliver=true", make_devices(tmp_path))
    states = [load_file(tmp_path / f"site-{i}" / "keep" / "models" / "latest" / "model.safetensors") for i in range(2)]
    server = load_file(directory / "model.safetensors")
    heads = [load_file(next((tmp_path / f"site-{i}" / "keep" / "heads").rglob("*2.safetensors"))) for i in range(2)]
    for state, head in zip(states, heads, strict=True):
        assert {name for name in state if not torch.equal(state[name], server[name])} == {"net.5.weight", "net.5.bias"}
        assert all(torch.equal(state[name], head[name]) for name in head)
    assert not torch.equal(heads[0]["net.5.weight"], heads[1]["net.5.weight"])


def test_old_runs_go(tmp_path: Path) -> None:
    configs = make_devices(tmp_path)
    runs = f"{PERSONAL} federation.deliver=true".replace("num_rounds=2", "num_rounds=1")
    for number in range(6):
        go(tmp_path, runs, configs, f"run-{number}")
    keep = tmp_path / "site-0" / "keep"
    assert len(list((keep / "heads").iterdir())) == 4
    assert len([path for path in (keep / "models").iterdir() if not path.is_symlink()]) == 4
    assert (keep / "models" / "latest" / "model.safetensors").exists()


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({"data-path": "/data", "keep-path": "keep"}, "keep-path=keep: must be an absolute path"),
        ({"data-path": "/data", "keep-path": 5}, "keep-path=5: must be an absolute path"),
        ({"partition-id": 0, "keep-path": "/keep"}, "is for a device with data of its own"),
        ({"data-path": "/data", "features-mb": 5}, "together with keep-path only"),
        ({"data-path": "/data", "keep-path": "/keep", "features-mb": -1}, "features-mb=-1: must be a whole number"),
        ({"data-path": "/data", "keep-path": "/keep", "features-mb": 0.5}, "features-mb=0.5: must be a whole number"),
    ],
)
def test_nonsense_is_refused(config: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        storage_folder(config)


def test_a_server_cannot_choose_the_folder(tmp_path: Path) -> None:
    """The run's name becomes part of a path."""
    configs = make_devices(tmp_path)
    overrides = f"{PERSONAL} federation.deliver=true"

    class Hostile(InProcessGrid):
        def push_messages(self, messages: Any) -> Any:
            found = list(messages)
            for message in found:
                if message.metadata.message_type != "query":
                    message.content.config_records["config"]["run"] = "../../../escaped"
            return super().push_messages(found)

    with pytest.raises(FederationError):
        run_on(Hostile(overrides, node_configs=configs), tmp_path / "run", overrides)
    assert not list(tmp_path.parent.rglob("escaped*"))
    assert {row["rejected"] for row in rejected(tmp_path / "run")} == {
        "bad reply: error 2: ValueError (see the client's log)"
    }
