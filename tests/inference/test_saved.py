"""A model rebuilt from a run directory: the same network without its weights' file, its data or foreign code."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from saved_runs import leave

from fedapp.common.errors import FedappError
from fedapp.data.sources.csv_table import CsvTable
from fedapp.inference.saved import load_run

MLP = "data=breast_cancer model=mlp model.hidden=[4]"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("kept") / "run"
    leave(directory, MLP)
    return directory


@pytest.fixture
def run(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "run"))


def refusal(directory: Path) -> str:
    with pytest.raises(FedappError) as raised:
        load_run(directory)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def change(run: Path, node: str, **values: Any) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config[node] |= values
    (run / "config.yaml").write_text(yaml.safe_dump(config))


# --- the same network, whatever its weights came from --------------------------------------------------------------


def pretrained(name: str, path: Path) -> str:
    """Overrides for a network whose weights, random ones, are in the file `path`."""
    if name == "efficientnet_lite0":
        from efficientnet_lite_pytorch import EfficientNet

        net, model = EfficientNet.from_name("efficientnet-lite0"), "model=efficientnet_lite0"
    else:
        from torchvision.models import get_model

        net, model = get_model(name), f"model=torchvision model.name={name} model.norm=batch"
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    net.train()(torch.randn(8, 3, 64, 64))  # statistics that let examples differ, as a trained network's do
    save_file(net.state_dict(), path)
    return f"{model} model.pretrained={path}"


@pytest.mark.slow
@pytest.mark.parametrize("trainable", ["head", "last_k", "lora", "full"])
@pytest.mark.parametrize("name", ["efficientnet_lite0", "mobilenet_v3_small"])
def test_a_pretrained_network_comes_back_without_its_weights_file(tmp_path: Path, name: str, trainable: str) -> None:
    weights = tmp_path / "weights.safetensors"
    overrides = f"task=transfer data.size=32 {pretrained(name, weights)} model.trainable={trainable}"
    whole = leave(tmp_path / "run", overrides)
    weights.unlink()
    saved = load_run(tmp_path / "run")
    inputs = torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = whole(inputs).softmax(1)
    assert torch.equal(saved.predict(inputs, "images"), expected)
    assert float((expected[0] - expected[1]).abs().max()) > 0  # or any two networks would be equal


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_lite0", "torchvision"])
def test_published_weights_are_neither_read_nor_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A saved model says pretrained=true; there is no file, no package and no network to have its weights from."""

    def fail(*_: Any, **__: Any) -> Any:
        raise AssertionError("weights were asked for")

    monkeypatch.setattr("fedapp.models.efficientnet_lite.package_file", fail)
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", fail)
    network = "efficientnet_lite0" if name == "efficientnet_lite0" else "mobilenet_v3_small"
    overrides = pretrained(network, tmp_path / "weights.safetensors")
    whole = leave(tmp_path / "run", f"task=transfer data.size=32 {overrides}")
    change(tmp_path / "run", "model", pretrained=True, weights_sha256="0" * 64)
    inputs = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(load_run(tmp_path / "run").predict(inputs, "x"), whole(inputs).softmax(1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "googlenet", "vit_h_14"])
def test_the_form_is_the_one_that_torchvision_gives_its_published_weights(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from torchvision.models import get_model, get_model_weights

    from fedapp.models.vision import _published_form

    weights = get_model_weights(name).DEFAULT
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", lambda *_, **__: {})
    with torch.device("meta"):  # sizes without values
        ours = get_model(name, weights=None, **_published_form(name, weights))
        monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
        theirs = get_model(name, weights=weights)
    assert {n: v.shape for n, v in ours.state_dict().items()} == {n: v.shape for n, v in theirs.state_dict().items()}
    settings = [
        {key: value for key, value in vars(net).items() if isinstance(value, bool | int)} for net in (ours, theirs)
    ]
    assert settings[0] == settings[1]


def test_a_run_of_an_earlier_version_names_no_kind_and_has_that_of_its_data(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["task"]["kind"], config["task"]["loss"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert load_run(run).task.kind == "classification"


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "values", "part"),
    [
        ("data", {"_target_": "os.system"}, "data._target_=os.system: is no code of fedapp.data.*"),
        ("model", {"_target_": "torch.load"}, "model._target_=torch.load: is no code of fedapp.models.*"),
        ("model", {"_target_": "fedapp.models.weights.torch.load"}, "is no code of fedapp.models.*"),
        ("model", {"_target_": "fedapp.models.weights.read_weights"}, "is no code of fedapp.models.*"),
        ("model", {"_target_": "fedapp.data.sources.csv_table.CsvTable"}, "is no code of fedapp.models.*"),
        ("data", {"_target_": ["fedapp.data.sources.embedded.Digits"]}, "is no code of fedapp.data.*"),
        (
            "task",
            {"kind": {"_target_": "os.system"}},
            "task.kind._target_=os.system: is no code of fedapp.learning.tasks",
        ),
        (
            "task",
            {"kind": {"_target_": "fedapp.learning.tasks.by_schema.instantiate"}},
            "is no code of fedapp.learning",
        ),
        ("model", {"hidden": {"_target_": "os.getcwd"}}, "model.hidden._target_=os.getcwd: is no code"),
        ("model", {"hidden": [{"_target_": "os.getcwd"}]}, "model.hidden._target_=os.getcwd: is no code"),
        ("model", {"_partial_": True}, "model._partial_=True: is no code"),
        ("model", {"dropout": "${oc.env:HOME}"}, "would be looked up elsewhere"),
        ("model", {"hiden": [4]}, "model.hiden: no such argument of fedapp.models.mlp.mlp; did you mean hidden?"),
    ],
)
def test_foreign_code_in_a_config_is_refused_by_name(run: Path, node: str, values: dict[str, Any], part: str) -> None:
    change(run, node, **values)
    found = refusal(run)
    assert found.startswith(f"{run}/config.yaml: ")
    assert part in found


def test_a_pickle_in_the_place_of_the_model_is_not_opened(run: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "exploded",))

    torch.save({"net.1.weight": Bomb()}, run / "model.safetensors")
    assert refusal(run).startswith(f"model={run}/model.safetensors: is no whole file of weights")
    assert not (tmp_path / "exploded").exists()


def test_yaml_that_makes_objects_is_not_read(run: Path, tmp_path: Path) -> None:
    text = (run / "config.yaml").read_text()
    mark = tmp_path / "exploded"
    (run / "config.yaml").write_text(text + f"extra: !!python/object/apply:os.mkdir ['{mark}']\n")
    assert "could not determine a constructor" in refusal(run)
    assert not mark.exists()


def test_what_is_no_finished_run_is_refused(run: Path, tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere") == (
        f"{tmp_path}/nowhere: no such folder; give the run directory that a run prints at its end"
    )
    assert "a file; give" in refusal(run / "config.yaml")
    (run / "model.safetensors").unlink()
    assert refusal(run).endswith(f"has not ended. Go on with it: python scripts/run.py --resume {run}")
    (run / "config.yaml").write_text("- 1\n")
    (run / "model.safetensors").write_bytes(b"")
    assert "no config of a run; data with its _target_ is missing" in refusal(run)
    (run / "config.yaml").write_text("a: [\n")
    assert "no config of a run" in refusal(run)
    (run / "config.yaml").unlink()
    assert "holds no run, there is no config.yaml" in refusal(run)


def test_a_model_that_was_cut_or_does_not_fit_is_refused(run: Path) -> None:
    weights = run / "model.safetensors"
    state = load_file(weights)
    weights.write_bytes(weights.read_bytes()[:-10])
    assert refusal(run).startswith(f"model={weights}: is no whole file of weights")
    first = next(name for name in state if name.endswith("weight"))
    save_file({**state, first: torch.zeros(2, 30)}, weights)
    assert refusal(run) == f"model={weights}: is of another network: it has {first} (2, 30), not (4, 30)"
    save_file({name: value for name, value in state.items() if name != first}, weights)
    assert refusal(run) == f"model={weights}: is of another network: it lacks {first}"


def test_a_model_that_is_not_the_summarys_is_refused(run: Path) -> None:
    sha256 = load_run(run).sha256
    (run / "summary.json").write_text(json.dumps({"model_sha256": sha256}))
    assert load_run(run).sha256 == sha256
    state = load_file(run / "model.safetensors")
    first = next(name for name in state if name.endswith("weight"))
    state[first][0, 0] += 1e-6
    save_file(state, run / "model.safetensors")
    found = refusal(run)
    assert found.startswith(f"model={run}/model.safetensors: is not the model of this run")
    assert sha256 in found
    (run / "summary.json").write_text("[]")
    assert refusal(run).startswith(f"{run}/summary.json: cannot be read")


# --- what was found in the data is in the config ---------------------------------------------------------------------


def test_strange_columns_and_classes_come_back_as_they_were(tmp_path: Path) -> None:
    """Texts that YAML takes for something else, and columns that begin as Hydra's own keys do."""
    values = ["no", "~", "1e3", "012", "ä b"]
    rows = "".join(f"{v},{i}.5,{'yes' if i % 2 else '1_0'}\n" for i, v in enumerate(values * 4))
    (tmp_path / "all.csv").write_text(f"_id,a.b,y\n{rows}", encoding="utf-8")
    leave(tmp_path / "run", f"data=csv data.path={tmp_path}/all.csv data.label=y model=logistic_regression")
    expected = CsvTable("y", str(tmp_path / "all.csv")).schema()
    (tmp_path / "all.csv").unlink()
    saved = load_run(tmp_path / "run")
    assert saved.schema == expected
    assert set(saved.schema.features) == {"a.b", *(f"_id={value}" for value in values)}
    assert saved.schema.classes == ("1_0", "yes")


def test_text_that_looks_like_an_interpolation_does_not_stop_the_run(tmp_path: Path) -> None:
    rows = "".join(f"{v},{i},{'p' if i % 2 else 'q'}\n" for i, v in enumerate(["a", "${x", "b"] * 4))
    (tmp_path / "all.csv").write_text(f"c,n,y\n{rows}")
    leave(tmp_path / "run", f"data=csv data.path={tmp_path}/all.csv data.label=y model=logistic_regression")
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["data"]["categorical"] == {"c": ["${x", "a", "b"]}
    assert "data.categorical.c=${x: ${...} would be looked up" in refusal(tmp_path / "run")


BOMBS = {
    "data": "a: &a [x, x]\n{levels}\ndata: *z\n",
    "unused": "a: &a [x, x]\n{levels}\n",
    "recursive": "a: &a [*a]\n",
    "merge": "a: &a {k: 1}\nb: {<<: *a}\n",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_yaml_with_aliases_is_not_read(run: Path, kind: str) -> None:
    """A few lines would stand for 2^60 values."""
    names = [f"n{i}" for i in range(60)] + ["z"]
    lines = [f"{name}: &{name} [*{before}, *{before}]" for before, name in zip(["a", *names], names, strict=False)]
    text = BOMBS[kind].format(levels="\n".join(lines)) if "levels" in BOMBS[kind] else BOMBS[kind]
    content = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text + "".join(f"x{line}\n" for line in content.splitlines()[:1]))
    assert "an alias (*" in refusal(run)
