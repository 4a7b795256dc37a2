"""Exported models: they say what the run's model says, without fedapp, or they are not kept."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from saved_runs import leave, load_script
from torch import Tensor

from fedapp.common.errors import ModelError
from fedapp.common.state_digest import state_sha256
from fedapp.data.sources.csv_table import CsvTable
from fedapp.inference.export import TOLERANCE, examples_to_check, export
from fedapp.inference.formats import FORMATS, Run
from fedapp.inference.saved import load_run

LOAD = """
import json, sys
import numpy as np, onnxruntime, torch
inputs = np.load(sys.argv[1])
facts = {"fedapp.json": ""}
script = torch.jit.load("model.torchscript", _extra_files=facts)
session = onnxruntime.InferenceSession("model.onnx")
outputs = {"torchscript": [], "onnx": []}
for count in (1, 2, len(inputs)):
    outputs["torchscript"].append(script(torch.from_numpy(inputs[:count])).tolist())
    outputs["onnx"].append(session.run(None, {"input": inputs[:count]})[0].tolist())
assert not any(name.startswith("fedapp") for name in sys.modules)
print(json.dumps([outputs, json.loads(facts["fedapp.json"]), session.get_modelmeta().custom_metadata_map]))
"""


def call(*arguments: object) -> int:
    return int(load_script("export").main([str(argument) for argument in arguments]))


@pytest.mark.slow
def test_both_formats_work_where_there_is_no_fedapp(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """LoRA, FrozenBatchNorm2d, statically padded convolutions, grey to RGB, and uint8 images."""
    run = tmp_path / "run"
    whole = leave(run, "task=transfer data.size=32 model.trainable=lora model.lora.rank=2")
    random = np.random.default_rng(0)
    for at in range(5):
        Image.fromarray(random.integers(0, 256, (32, 32), dtype=np.uint8)).save(tmp_path / f"{at}.png")
    images = [tmp_path / f"{at}.png" for at in range(5)]
    for kind in FORMATS:
        assert call(run, "--format", kind, "--check", *images) == 0
        assert f"on 5 examples of {images[0]}, " in capsys.readouterr().out
    inputs = np.stack([np.asarray(Image.open(path)) for path in images])[:, None]
    np.save(tmp_path / "inputs.npy", inputs)
    command = [sys.executable, "-W", "ignore", "-c", LOAD, str(tmp_path / "inputs.npy")]
    done = subprocess.run(command, cwd=run, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    outputs, script_facts, onnx_facts = json.loads(done.stdout)
    with torch.no_grad():
        expected = whole(torch.from_numpy(inputs)).softmax(1)
    assert float((expected[0] - expected[1]).abs().max()) > 100 * TOLERANCE  # or a constant would pass
    for found in outputs.values():
        for count, rows in zip((1, 2, 5), found, strict=True):
            assert torch.allclose(torch.tensor(rows), expected[:count], rtol=0, atol=TOLERANCE)
    assert script_facts == {
        "input_shape": [1, 32, 32],
        "input_dtype": "uint8",
        "features": [],
        "classes": ["sound", "defective"],
        "labels": [],
        "model_sha256": state_sha256(whole.state_dict()),
    }
    assert onnx_facts == {k: v if isinstance(v, str) else json.dumps(v) for k, v in script_facts.items()}
    assert sorted(path.name for path in run.iterdir()) == [
        *("config.yaml", "model.onnx", "model.safetensors", "model.torchscript")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(FORMATS))
@pytest.mark.parametrize("regression", [False, True])
def test_tables_take_their_scaling_and_missing_values_with_them(tmp_path: Path, kind: str, regression: bool) -> None:
    rows = "".join(f"{1000 + i},{'ab'[i % 2]},{i % 3}\n" for i in range(30))
    (tmp_path / "all.csv").write_text(f"n,c,y\n{rows}")
    overrides = f"data=csv data.path={tmp_path}/all.csv data.label=y data.missing=mean data.regression={regression}"
    leave(tmp_path / "run", f"{overrides} model=mlp model.hidden=[4]")
    saved = load_run(tmp_path / "run")
    layer = saved.predictor.model.get_submodule("input")
    layer.get_buffer("offset").copy_(torch.tensor([1000.0, 0.5, 0.5]))
    layer.get_buffer("scale").copy_(torch.tensor([10.0, 0.5, 0.5]))
    inputs = torch.tensor([[1003.0, 1, 0], [float("nan"), 0, 1], [1020.0, 0, 0]])
    path = tmp_path / "out"
    assert export(saved, kind, path, inputs) <= TOLERANCE
    found = FORMATS[kind].load(path)(inputs)
    assert found.shape == (3, 1 if regression else 3)
    assert torch.allclose(found, saved.predict(inputs, "x"), atol=1e-5)
    assert float((found[0] - found[1]).abs().max()) > 1e-3
    if not regression:
        assert torch.allclose(found.sum(1), torch.ones(3))


def test_it_is_compared_on_files_else_on_test_data_else_on_random_inputs(tmp_path: Path) -> None:
    rows = "".join(f"{500 + i},{i % 2}\n" for i in range(40))
    (tmp_path / "all.csv").write_text(f"n,y\n{rows}")
    overrides = f"data=csv data.path={tmp_path}/all.csv data.label=y data.missing=mean model=logistic_regression"
    leave(tmp_path / "run", overrides)
    saved = load_run(tmp_path / "run")
    test = CsvTable("y", str(tmp_path / "all.csv"), missing="mean").test()
    assert test is not None
    (tmp_path / "new.csv").write_text("n\n7\n8\n")
    inputs, what = examples_to_check(saved, [tmp_path / "new.csv"])
    assert (inputs.tolist(), what) == ([[7.0], [8.0]], f"2 examples of {tmp_path}/new.csv")
    inputs, what = examples_to_check(saved, [])
    assert torch.equal(inputs, test.inputs)
    assert what == "8 examples of the run's test data"
    (tmp_path / "all.csv").unlink()
    saved = load_run(tmp_path / "run")
    saved.predictor.model.get_submodule("input").get_buffer("offset").fill_(500.0)
    inputs, what = examples_to_check(saved, [])
    assert "random inputs" in what
    assert inputs.shape == (128, 1)
    assert 0 < int(inputs.isnan().sum()) < 128
    assert float(inputs.nanmean()) == pytest.approx(500, abs=1)


def test_random_images_are_images(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / "images" / label).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / label / "0.png")
    overrides = f"data=image_folder data.path={tmp_path}/images data.size=8 model=logistic_regression"
    leave(tmp_path / "run", overrides)
    shutil.rmtree(tmp_path / "images")
    inputs, what = examples_to_check(load_run(tmp_path / "run"), [])
    assert "random inputs" in what
    assert inputs.shape == (128, 3, 8, 8)
    assert inputs.dtype == torch.uint8
    assert int(inputs.max()) == 255


def test_a_file_that_says_something_else_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, path = tmp_path / "run", tmp_path / "out"
    leave(run, "data=breast_cancer model=logistic_regression")
    path.write_text("from before")
    honest = FORMATS["torchscript"]

    def skewed(path: Path, by: float) -> Run:
        def outputs(inputs: Tensor) -> Tensor:
            found = honest.load(path)(inputs).clone()
            found[-1, 0] += by
            return found

        return outputs

    for by, status in ((2 * TOLERANCE, 1), (float("nan"), 1), (TOLERANCE / 2, 0)):
        load = partial(skewed, by=by)
        monkeypatch.setitem(FORMATS, "torchscript", replace(honest, load=load))
        assert call(run, "--format", "torchscript", "--output", path) == status
        captured = capsys.readouterr()
        assert captured.out.startswith("largest difference from the run's model: ")
        assert (path.read_bytes() == b"from before") == bool(status)
        if status:
            assert captured.err == f"error: {path}: says something else than the run's model, so it was not kept\n"
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out", "run"]


def test_what_cannot_be_exported_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    leave(run, "data=breast_cancer model=logistic_regression")
    (tmp_path / "short.csv").write_text("mean radius\n1\n")
    for arguments, part in (
        ((tmp_path / "none", "--format", "onnx"), "none: no such folder; give the run directory"),
        ((run, "--format", "onnx", "--output", tmp_path / "none" / "x"), f"there is no folder {tmp_path}/none"),
        ((run, "--format", "torchscript", "--output", run), f"{run}: cannot be written: Is a directory"),
        ((run, "--format", "torchscript", "--check", tmp_path / "short.csv"), "short.csv: no column 'mean texture'"),
    ):
        assert call(*arguments) == 2
        assert part in capsys.readouterr().err
    saved = load_run(run)
    monkeypatch.setattr(saved.predictor, "forward", lambda x: x[0])  # mistakes one example for all
    with pytest.raises(ModelError, match=r"out: this network cannot be exported as torchscript: it gives \("):
        export(saved, "torchscript", tmp_path / "out", torch.zeros(3, 30))
    monkeypatch.setattr("fedapp.inference.formats.find_spec", lambda name: None if name == "onnxscript" else True)
    assert call(run, "--format", "onnx") == 2
    assert "needs onnxscript; install: pip install -e '.[onnx]'" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        *("config.yaml", "model.safetensors", "run", "short.csv")
    ]
    with pytest.raises(SystemExit) as end:
        call(run, "--format", "pickle")
    assert end.value.code == 2
