"""Predictions of a finished run: those that its model made on the server's test data, and clear refusals."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from in_process import run_in_process
from PIL import Image
from saved_runs import ROOT, leave, load_script

from fedapp.common.errors import DataError
from fedapp.data.source import DataSource, Pooled, Schema
from fedapp.data.sources.csv_table import CsvTable
from fedapp.data.sources.embedded import BreastCancer, Digits
from fedapp.data.sources.hub import Hub
from fedapp.data.sources.image_folder import ImageFolder
from fedapp.data.sources.solar import SolarCells
from fedapp.inference.predict import Predictions
from fedapp.learning.tasks.classification import Classification

QUICK = "federation.num_clients=2 federation.fraction_train=1.0 partition=iid federation.final_evaluation=false"


def predict(*arguments: object) -> int:
    return int(load_script("predict").main([str(argument) for argument in arguments]))


def said(directory: Path) -> float:
    return float(json.loads((directory / "summary.json").read_text())["test_accuracy"])


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def save_grey(path: Path, pixels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)


# --- as the run's model ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and beside it the server's test digits as PNG files, in folders that are no classes."""
    folder = tmp_path_factory.mktemp("digits")
    run_in_process(
        folder / "run", f"data=digits model=logistic_regression federation.num_rounds=3 {QUICK}", num_nodes=1
    )
    test = Digits().test()
    assert test is not None
    for at, (image, label) in enumerate(zip(test.inputs, test.targets, strict=True)):
        save_grey(folder / "images" / f"part{at % 2}" / f"{at}-is-{int(label)}.png", image[0] * 255 / 16)
    return folder


@pytest.mark.slow
def test_predictions_on_pictures_have_the_accuracy_of_the_summary(digits: Path) -> None:
    """From the two files alone, by the command, in a process that has no network and imports no Flower."""
    device = digits / "device"
    device.mkdir()
    for name in ("config.yaml", "model.safetensors"):
        shutil.copy(digits / "run" / name, device)
    code = (
        "import runpy, socket, sys\n"
        "socket.socket.connect = socket.getaddrinfo = None\n"
        "try: runpy.run_path(sys.argv.pop(1), run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'flwr', 'flwr_datasets', 'ray', 'opacus', 'pandas', 'sklearn', 'torchvision'}, loaded\n"
    )
    command = [sys.executable, "-c", code, str(ROOT / "scripts" / "predict.py"), str(device), str(digits / "images")]
    done = subprocess.run(command, cwd=digits, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(lines) == 360
    assert all(0.1 <= float(probability) <= 1 for _, _, probability in lines)
    right = [name.endswith(f"-is-{predicted}.png") for name, predicted, _ in lines]
    assert sum(right) / 360 == pytest.approx(said(digits / "run"), abs=1e-9)
    assert said(digits / "run") > 0.8


@pytest.mark.slow
def test_a_table_is_read_as_in_training_once_the_training_table_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Columns, categories, classes and scaling were all found in the table that is deleted."""
    random = np.random.default_rng(0)

    def table(path: Path, count: int) -> list[str]:
        rows, labels = ["age,sex,id,outcome"], []
        for at in range(count):
            age, sex = random.normal(500, 100), "fmx"[random.integers(3)]
            labels.append("ill" if (age - 500) / 100 + (sex == "f") + 0.3 * random.normal() > 0.3 else "well")
            rows.append(f"{age:.2f},{sex},{at},{labels[-1]}")
        path.write_text("\n".join(rows) + "\n")
        return labels

    table(tmp_path / "all.csv", 200)
    labels = table(tmp_path / "test.csv", 60)
    run = tmp_path / "run"
    run_in_process(
        run,
        f"data=csv data.path={tmp_path}/all.csv data.test_path={tmp_path}/test.csv data.label=outcome data.ignore=[id]"
        f" model=logistic_regression federation.num_rounds=20 {QUICK}",
        num_nodes=1,
    )
    new = tmp_path / "new.csv"  # neither label nor id, and other places for the rest
    rows = [line.split(",") for line in (tmp_path / "test.csv").read_text().splitlines()]
    new.write_text("".join(f"{sex},{age}\n" for age, sex, *_ in rows))
    (tmp_path / "all.csv").unlink()
    (tmp_path / "test.csv").unlink()

    assert predict(run, new, "--output", tmp_path / "found.csv") == 0
    found = read(tmp_path / "found.csv")
    assert list(found[0]) == ["name", "prediction", "probability of ill", "probability of well"]
    assert [row["name"] for row in found] == [str(number) for number in range(2, 62)]
    right = [row["prediction"] == label for row, label in zip(found, labels, strict=True)]
    assert sum(right) / 60 == pytest.approx(said(run), abs=1e-9)
    assert said(run) > 0.8
    for row in found:
        ill, well = float(row["probability of ill"]), float(row["probability of well"])
        assert ill + well == pytest.approx(1, abs=1e-6)
        assert row["prediction"] == ("ill" if ill > well else "well")

    capsys.readouterr()
    assert predict(run, new, new) == 0  # several files: rows are told apart
    assert capsys.readouterr().out.splitlines()[0].startswith(f"{new}:2\t{found[0]['prediction']}\t")

    for change, part in (  # as in training
        (lambda text: text.replace("\nf,", "\nq,", 1), "'q' is no known category; known: 'f', 'm', 'x'"),
        (lambda text: text.replace("sex,age", "sex,years"), "no column 'age'; it has 'sex', 'years'"),
        (lambda text: text.replace("\nf,", "\n,", 1), "'' is a missing value. Fill it in"),
        (lambda text: "sex,age\nf,old\n", "column 'age', row 2: 'old' is not a number"),
    ):
        bad = tmp_path / "bad.csv"
        bad.write_text(change(new.read_text()))
        assert predict(run, new, bad, "--output", tmp_path / "none.csv") == 2
        captured = capsys.readouterr()
        assert captured.err.startswith(f"error: {bad}: ")
        assert part in captured.err
        assert captured.err.count("\n") == 1
        assert captured.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv", "found.csv", "new.csv", "run"]


def test_regression_gives_values_and_missing_ones_are_imputed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"{i},{i * i % 7},{3 * i + 1}\n" for i in range(40))
    (tmp_path / "all.csv").write_text(f"a,b,y\n{rows}")
    whole = leave(
        tmp_path / "run",
        f"data=csv data.path={tmp_path}/all.csv data.label=y data.regression=true data.missing=mean"
        " model=logistic_regression",
    )
    (tmp_path / "all.csv").write_text("a,b\n1,2\n,3\n")
    assert predict(tmp_path / "run", tmp_path / "all.csv") == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    expected = whole(torch.tensor([[1.0, 2.0], [float("nan"), 3.0]]))[:, 0].tolist()
    assert [name for name, _ in lines] == ["2", "3"]
    assert [float(value) for _, value in lines] == pytest.approx(expected, rel=1e-7)


def test_classes_that_were_found_as_folders_are_known_without_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label, shade in (("no", 20), ("yes", 220), ("yes", 230), ("no", 10)):
        save_grey(tmp_path / "images" / label / f"{shade}.png", np.full((8, 8), shade))
    overrides = f"data=image_folder data.path={tmp_path}/images data.size=8 data.channels=1 model=logistic_regression"
    whole = leave(tmp_path / "run", overrides)
    shutil.copytree(tmp_path / "images", tmp_path / "new" / "deep")
    shutil.rmtree(tmp_path / "images")
    (tmp_path / "new" / ".DS_Store").write_text("hidden")
    one = tmp_path / "new" / "deep" / "no" / "20.png"
    assert predict(tmp_path / "run", tmp_path / "new", one) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [Path(name).name for name, *_ in lines] == ["10.png", "20.png", "220.png", "230.png", "20.png"]
    inputs = torch.tensor([10, 20, 220, 230, 20], dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8)
    expected = whole(inputs).softmax(1)
    assert [predicted for _, predicted, _ in lines] == [("no", "yes")[int(at)] for at in expected.argmax(1)]
    assert [float(p) for *_, p in lines] == pytest.approx(expected.max(1).values.tolist(), abs=1e-4)


# --- what each data source takes -------------------------------------------------------------------------------------


def test_sources_of_images_take_files_and_trees(tmp_path: Path) -> None:
    shades = torch.arange(64, dtype=torch.uint8).reshape(8, 8) * 3
    save_grey(tmp_path / "a" / "x.png", shades)
    for source, size in (
        (ImageFolder(size=8, channels=1, classes=["a", "b"]), 8),
        (SolarCells(size=8, test_fraction=0.2, split_seed=0, group=None), 8),
        (Hub("nowhere/none", "label", image="img", classes=["a", "b"], size=8, channels=1), 8),
    ):
        for path in (tmp_path, tmp_path / "a" / "x.png"):
            inputs, names = source.unlabelled(path)
            assert names == [str(tmp_path / "a" / "x.png")]
            assert inputs.dtype == torch.uint8
            assert torch.equal(inputs, shades.reshape(1, 1, size, size))
    levels, _ = Digits().unlabelled(tmp_path)
    assert torch.equal(levels[0, 0], (shades.float() * 16 / 255).round())


@pytest.mark.parametrize("scaling", ["federated", "published"])
def test_measurements_come_from_a_table(tmp_path: Path, scaling: Any) -> None:
    source = BreastCancer(scaling=scaling)
    test = source.test()
    assert test is not None
    features = source.schema().features
    lines = [",".join(features[::-1])] + [",".join(str(v) for v in row.tolist()[::-1]) for row in test.inputs]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    inputs, names = source.unlabelled(tmp_path / "t.csv")
    assert torch.equal(inputs, test.inputs)
    assert names[0] == "2"
    by_hub = Hub("nowhere/none", "label", features=list(features), classes=["a", "b"])
    assert torch.equal(by_hub.unlabelled(tmp_path / "t.csv")[0], test.inputs)


def test_a_source_that_reads_no_new_examples_says_so() -> None:
    class Own(DataSource):
        def schema(self) -> Schema:
            return Schema((2,))

        def pooled(self) -> Pooled:
            raise NotImplementedError

    with pytest.raises(DataError, match=r"^x: Own reads no new examples from files; write its method `unlabelled`"):
        Own().unlabelled(Path("x"))
    assert Own().settled() == {}


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("nothing.png", "no such file or folder"),
        ("text.png", "cannot be used as an image"),
        ("empty", "no images; they are named *.png"),
        ("mixed", "notes.txt: no image. A folder of images holds nothing but files named *.png"),
    ],
)
def test_what_is_no_image_is_refused_and_nothing_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, part: str
) -> None:
    leave(tmp_path / "run", "data=digits model=logistic_regression")
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty").mkdir()
    save_grey(tmp_path / "mixed" / "a.png", np.zeros((8, 8)))
    (tmp_path / "mixed" / "notes.txt").write_text("")
    good = tmp_path / "mixed" / "a.png"
    assert predict(tmp_path / "run", good, tmp_path / name, "--output", tmp_path / "out.csv") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {tmp_path / name}")
    assert part in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "out.csv").exists()


def test_wrong_arguments_end_with_2_and_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(tmp_path / "run", "data=digits model=logistic_regression")
    image = tmp_path / "a.png"
    save_grey(image, np.zeros((8, 8)))
    before = sorted(tmp_path.rglob("*"))
    for arguments, part in (
        ((tmp_path / "none", image), "none: no such folder; give the run directory"),
        ((tmp_path / "run", image, "--device", "cuda:99"), "--device=cuda:99: "),
        ((tmp_path / "run", image, "--output", tmp_path / "none" / "x.csv"), f"there is no folder {tmp_path}/none"),
        ((tmp_path / "run", image, "--output", tmp_path / "run"), "Is a directory"),
    ):
        assert predict(*arguments) == 2
        assert part in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(SystemExit) as end:
        predict(tmp_path / "run")
    assert end.value.code == 2


def test_names_and_classes_that_are_no_plain_text_are_written_whole() -> None:
    task = Classification(Schema((1,), ('yes,"', "no")))
    odd = Predictions(("a,b\udcff", "ü\nx"), task, torch.tensor([[0.25, 0.75], [1.0, 0.0]]))
    text = odd.to_csv().decode()
    rows = list(csv.reader(text.splitlines(keepends=True)))
    assert rows[0] == ["name", "prediction", 'probability of yes,"', "probability of no"]
    assert rows[1] == ["a,b\\udcff", "no", "0.25", "0.75"]
    assert rows[2] == ["ü\nx", 'yes,"', "1", "0"]


def test_rows_with_missing_values_are_dropped_where_training_dropped_them(tmp_path: Path) -> None:
    source = CsvTable("y", numeric=["a"], categorical={"c": ["p", "q"]}, classes=["0", "1"], missing="drop")
    (tmp_path / "t.csv").write_text("y,a,c\n,1,p\n0,,q\n5,3,q\n1,4,\n")  # of the labels none counts
    inputs, names = source.unlabelled(tmp_path / "t.csv")
    assert names == ["2", "4"]
    assert inputs.tolist() == [[1, 1, 0], [3, 0, 1]]
