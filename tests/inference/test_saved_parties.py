"""Predictions and exports of a vertical model: what its parts, put together, said in the run."""

import csv
import json
import math
import random
import shlex
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from parties import SMALL, run_parties_in, summary_of
from saved_runs import load_script
from torch import Tensor

from fedapp.common.errors import DataError, FedappError
from fedapp.config import compose
from fedapp.data.sources.embedded import BreastCancer
from fedapp.inference.formats import FACTS, FORMATS
from fedapp.inference.predict import Predictions
from fedapp.inference.saved_parties import SavedParties, files_of, load_parties, predict_parties
from fedapp.vertical.saved_part import about_json, load_part
from fedapp.vertical.vertical_options import vertical_options

pytestmark = pytest.mark.slow  # whole federations

NAMES = ("errors", "means", "worst")
ROUNDS = f"{SMALL} train.batch_size=128 optimizer.lr=0.3"
PATTERNS = dict(zip(NAMES, (" error", "mean ", "worst "), strict=True))


def script(name: str, *arguments: object) -> int:
    return int(load_script(name).main([str(argument) for argument in arguments]))


def write(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def cells(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Breast cancer as three CSV files, each in an order of its own, with a key and, at one party, the labels."""
    folder, source = tmp_path_factory.mktemp("tables"), BreastCancer()
    pooled, features = source.pooled(), source.schema().features
    assert pooled.test is not None
    inputs = torch.cat([pooled.train.inputs, pooled.test.inputs])
    targets = torch.cat([pooled.train.targets, pooled.test.targets]).tolist()
    for name, pattern in PATTERNS.items():
        own = [at for at, feature in enumerate(features) if pattern in feature]
        rows: list[list[object]] = [
            [f"p{at}", *(f"{value:.9g}" for value in inputs[at, own].tolist())] for at in range(len(inputs))
        ]
        header = ["patient", *(features[at] for at in own)]
        if name == "means":
            header.append("label")
            rows = [[*row, source.schema().classes[target]] for row, target in zip(rows, targets, strict=True)]
        random.Random(name).shuffle(rows)
        write(folder / f"{name}.csv", [header, *rows])
    return folder


def line(tables: Path) -> str:
    files = ",".join(f"{name}:{tables}/{name}.csv" for name in NAMES)
    return (
        f"{ROUNDS} data=party_files data.parties={{{files}}} data.label_party=means data.label=label data.key=patient"
    )


@pytest.fixture(scope="module")
def run(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_parties_in(tmp_path_factory.mktemp("by_files") / "run", line(tables))


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copied"))


def words(folder: Path) -> list[str]:
    return [f"{name}={folder}/{name}.csv" for name in NAMES]


def predicted(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_predictions_on_held_out_rows_have_the_accuracy_of_the_summary(
    tables: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The label party's held-out rows without their labels; the others' whole tables."""
    held = vertical_options(compose(line(tables).split())).source.table("means", "means").held_out
    assert held is not None
    header, *rows = cells(tables / "means.csv")
    tested = [row for row, out in zip(rows, held.tolist(), strict=True) if out]
    new = write(tmp_path / "new.csv", [header[:-1], *(row[:-1] for row in tested)])
    given = [f"means={new}", *(word for word in words(tables) if not word.startswith("means"))]
    assert script("predict", run, *given, "--output", tmp_path / "found.csv") == 0
    found, summary = predicted(tmp_path / "found.csv"), summary_of(run)
    assert list(found[0]) == ["name", "prediction", "probability of benign", "probability of malignant"]
    assert [row["name"] for row in found] == [str(number) for number in range(2, 116)]
    right = [row["prediction"] == label for row, (*_, label) in zip(found, tested, strict=True)]
    assert sum(right) / 114 == pytest.approx(summary["test_accuracy"], abs=1e-9)
    assert 0.8 < summary["test_accuracy"] < 1
    losses = [-math.log(float(row[f"probability of {own[-1]}"])) for row, own in zip(found, tested, strict=True)]
    assert sum(losses) / 114 == pytest.approx(summary["test_loss"], abs=1e-5)
    captured = capsys.readouterr()
    assert captured.err == ""
    assert script("predict", run, *given) == 0
    assert capsys.readouterr().out.splitlines()[0].split("\t")[:2] == ["2", found[0]["prediction"]]


def test_columns_of_one_table_are_joined_by_the_number_of_the_row(tables: Path, tmp_path: Path) -> None:
    """The default of task=vertical, whose parties have no key columns."""
    run = run_parties_in(tmp_path / "run", ROUNDS)
    source = BreastCancer()
    test, features = source.pooled().test, source.schema().features
    assert test is not None
    for name, pattern in PATTERNS.items():
        own = [feature for feature in features if pattern in feature]
        values = test.inputs[:, [features.index(feature) for feature in own]].tolist()
        write(tmp_path / f"{name}.csv", [own, *values])
    saved = load_parties(run)
    found, notes = predict_parties(saved, files_of(saved, list(map(Path, words(tmp_path)))))
    assert notes == []
    assert float((found.values.argmax(1) == test.targets).double().mean()) == pytest.approx(
        summary_of(run)["test_accuracy"], abs=1e-9
    )


def test_categories_missing_values_and_weighted_classes_come_back(tmp_path: Path) -> None:
    """A party's own columns of a table that says how its cells are written."""
    random_ = random.Random(0)

    def table(path: Path, count: int) -> Path:
        rows: list[list[object]] = []
        for _ in range(count):
            number, letter = random_.gauss(500, 100), random_.choice("abc")
            ill = (number - 500) / 100 + (letter == "b") > 0.5
            blank = random_.random() < 0.1
            rows.append(["-" if blank else f"{number:.1f}".replace(".", ","), letter, "ill" if ill else "well"])
        path.write_text("".join(";".join(map(str, row)) + "\n" for row in [["n", "c", "y"], *rows]))
        return path

    whole, test = table(tmp_path / "all.csv", 150), table(tmp_path / "test.csv", 40)
    run = run_parties_in(
        tmp_path / "run",
        f"{ROUNDS} data=csv data.path={whole} data.test_path={test} data.label=y data.missing=mean"
        " 'data.more_missing_values=[-]' 'data.decimal=\",\"' 'partition.parties={a:n,b:c}' vertical.label_party=b"
        " vertical.fusion.masked=false task/loss=cross_entropy task.loss.class_weights=balanced train.batch_size=16"
        " model.hidden=[16] train.local_epochs=2",
    )
    saved, labels = load_parties(run), [line.split(";")[2] for line in test.read_text().splitlines()[1:]]
    found, _ = predict_parties(saved, {"a": test, "b": test})
    right = [
        saved.labelled.about.classes[at] == label for at, label in zip(found.values.argmax(1), labels, strict=True)
    ]
    assert sum(right) / 40 == pytest.approx(summary_of(run)["test_accuracy"], abs=1e-9)
    assert sum(right) / 40 > 0.7
    assert len(set(found.values[:, 0].tolist())) > 20
    (tmp_path / "odd.csv").write_text("c;n\nq;1,5\n")
    with pytest.raises(DataError, match=r"odd.csv: column 'c', row 2: 'q' is no known category; known: 'a', 'b', 'c'"):
        predict_parties(saved, {"a": test, "b": tmp_path / "odd.csv"})


def test_numbers_come_back_in_their_unit(tables: Path, tmp_path: Path) -> None:
    given = line(tables).replace(
        "data.label=label", "'data.label=mean area' data.regression=true 'data.ignore=[label]'"
    )
    run = run_parties_in(tmp_path / "run", given)
    saved = load_parties(run)
    found, _ = predict_parties(saved, {name: tables / f"{name}.csv" for name in NAMES})
    header, *rows = cells(tables / "means.csv")
    held = vertical_options(compose(shlex.split(given))).source.table("means", "means").held_out
    assert held is not None
    errors = (found.values[:, 0] - torch.tensor([float(row[header.index("mean area")]) for row in rows])).abs()
    assert float(errors[held].mean()) == pytest.approx(summary_of(run)["test_mae"], rel=1e-5)
    assert float(found.values.mean()) == pytest.approx(650, abs=100)


# --- rows without a match --------------------------------------------------------------------------------------------


def some(tables: Path, folder: Path, persons: Mapping[str, Sequence[str]]) -> dict[str, Path]:
    """By party, a file of these persons, in this order."""
    files = {}
    for name, wanted in persons.items():
        header, *rows = cells(tables / f"{name}.csv")
        by_key = {row[0]: row for row in rows}
        files[name] = write(folder / f"{name}.csv", [header, *(by_key[person] for person in wanted)])
    return files


def with_unmatched(saved: SavedParties, unmatched: Any) -> SavedParties:
    parts = {n: replace(p, about=replace(p.about, unmatched=unmatched)) for n, p in saved.parts.items()}
    return SavedParties(parts)


def test_rows_without_a_match_are_named(tables: Path, run: Path, tmp_path: Path) -> None:
    persons = [f"p{at}" for at in range(6)]
    files = some(tables, tmp_path, {"means": persons, "errors": persons[::-1], "worst": ["p4", "p0"]})
    saved = load_parties(run)
    whole, _ = predict_parties(saved, {**files, "worst": tables / "worst.csv"})
    left, notes = predict_parties(saved, files)
    assert left.names == ("2", "6")
    assert torch.allclose(left.values, whole.values[[0, 4]], atol=1e-6)
    assert notes == [
        f"{files['means']}: rows 3-5, 7: worst has no such entity; left out (vertical.unmatched=drop)",
    ]
    zero, notes = predict_parties(with_unmatched(saved, "zero"), files)
    assert zero.names == whole.names
    assert torch.allclose(zero.values[[0, 4]], left.values, atol=1e-6)
    assert not torch.allclose(zero.values[1], whole.values[1])
    assert "rows 3-5, 7: worst has no such entity; predicted without that party" in notes[0]
    files |= some(tables, tmp_path, {"worst": ["p9"]})
    with pytest.raises(DataError, match=r"no row has a match at every party; .*rows 2-7: worst has no such entity"):
        predict_parties(saved, files)


def test_what_is_wrong_with_the_files_is_said(tables: Path, run: Path, tmp_path: Path) -> None:
    saved = load_parties(run)
    example = "give errors=FILE means=FILE worst=FILE"
    for given, said in (
        (["a.csv"], f"a.csv: a vertical model reads a table of each party; {example}"),
        (["bank=a.csv"], f"bank=a.csv: a vertical model reads a table of each party; {example}"),
        (["means=a.csv", "means=b.csv"], f"means=b.csv: party means has a file already; {example}"),
        (["means=a.csv", "worst=b.csv"], f"errors: has no file; {example}"),
    ):
        with pytest.raises(DataError) as raised:
            files_of(saved, [Path(word) for word in given])
        assert str(raised.value) == said
    files = some(tables, tmp_path, {"means": ["p1"], "errors": ["p1"], "worst": ["p1", "p2", "p1"]})
    with pytest.raises(DataError, match="party worst: rows 1 and 3 have the same identity 'p1'"):
        predict_parties(saved, files)
    with pytest.raises(DataError, match=r"errors.csv: no column 'worst radius'"):
        predict_parties(saved, {**files, "worst": files["errors"]})


# --- parts that are not as they were ---------------------------------------------------------------------------------


def change(path: Path, **values: Any) -> None:
    """part.json with other values, and a digest of them."""
    about = load_part(path.parent).about
    path.write_bytes(about_json(replace(about, **values)))


def test_a_damaged_or_foreign_part_is_refused_by_name(copied: Path, run: Path) -> None:
    part, worst = (copied / "parties" / name for name in ("errors", "worst"))
    weights, about = part / "part.safetensors", part / "part.json"

    def refused(said: str) -> None:
        with pytest.raises(FedappError, match=said):
            load_parties(copied)
        for name in ("part.safetensors", "part.json"):
            shutil.copy(run / "parties" / "errors" / name, part / name)
        load_parties(copied)

    content = weights.read_bytes()
    weights.write_bytes(content[:-4] + b"\0\0\0\0")
    refused("errors/part.safetensors: is not the part of errors that part.json speaks of")
    weights.write_bytes(content[:100])
    refused("errors/part.safetensors: is no whole file of weights")
    shutil.copy(worst / "part.safetensors", weights)
    refused("errors/part.safetensors: is not the part of errors that part.json speaks of")
    for name in ("part.safetensors", "part.json"):
        shutil.copy(worst / name, part / name)
    refused("errors/part.json: is of party worst, not of errors")
    about.write_text(about.read_text().replace('"mean"', '"error"'))
    refused("errors/part.json: was changed or damaged")
    about.write_text("{")
    refused("errors/part.json: says not what a part is of")
    change(about, run="0" * 16)
    refused("worst/part.json|means/part.json: is of another run than .*errors/part.json")
    change(about, embedding=5)
    refused("errors/part.safetensors: is of another network")
    for node in ("model", "kind", "loss", "fusion"):
        change(about, **{node: {"_target_": "os.system", "command": "true"}})
        refused(rf"errors/part.json: {node}._target_=os.system: is no code of fedapp")
    summary = summary_of(copied)
    summary["parties"]["errors"]["part_sha256"] = "0" * 64
    (copied / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(FedappError, match=r"errors/part\.safetensors: is not the part of this run"):
        load_parties(copied)


def test_what_cannot_be_predicted_is_said(copied: Path, tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, said in ((["--best"], "--best: parties keep"), (["--device", "meta"], "--device meta: a model in parts")):
        assert script("predict", copied, *words(tables), *more) == 2
        assert capsys.readouterr().err.startswith(f"error: {said}")
    (copied / "parties" / "worst" / "part.json").unlink()
    assert script("predict", copied, *words(tables)) == 2
    assert "worst/part.json, since its run has not ended" in capsys.readouterr().err
    shutil.rmtree(copied / "parties")  # as a run over devices leaves it
    assert script("predict", copied, *words(tables)) == 2
    assert "this run's parties keep theirs on their own devices" in capsys.readouterr().err


def test_a_part_says_how_rows_are_read_and_holds_none(tables: Path, run: Path) -> None:
    for name in NAMES:
        path = run / "parties" / name / "part.json"
        text, about = path.read_text(), json.loads(path.read_text())
        assert path.stat().st_mode & 0o077 == 0
        assert about["sha256"] == summary_of(run)["parties"][name]["part_sha256"]
        assert about["parties"] == list(NAMES)
        assert about["position"] == NAMES.index(name)
        assert about["features"] == about["reading"]["columns"]["numeric"]
        assert set(map(tuple, about["reading"]["keys"].values())) == {("patient",)}
        header, *rows = cells(tables / f"{name}.csv")
        assert all(feature in header for feature in about["features"])
        assert not any(f'"{cell}"' in text for row in rows for cell in row if cell not in about["classes"])
        assert not any(cell in text for row in rows for cell in row[1:11] if len(cell) > 5)


# --- export ----------------------------------------------------------------------------------------------------------


def bottoms(run: Path, kind: str, names: Sequence[str], saved: SavedParties, files: Mapping[str, Path]) -> list[Tensor]:
    """What the exported bottoms of these parties make of their files, in the order of the label party's rows."""
    found = []
    for name in names:
        reading = saved.parts[name].about.reading
        assert reading is not None
        inputs = reading.read(files[name], name)[0].inputs
        found.append(FORMATS[kind].load(run / "parties" / name / f"bottom{FORMATS[kind].suffix}")(inputs))
    return found


@pytest.mark.parametrize("kind", list(FORMATS))
def test_exported_parts_together_give_the_predictions(
    kind: str, tables: Path, copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxscript")
    files = some(tables, tmp_path, {name: [f"p{at}" for at in range(9)] for name in NAMES})
    for name in NAMES:
        assert script("export", copied, "--format", kind, "--party", name, "--check", files[name]) == 0
    assert f"on 9 examples of {files['worst']}" in capsys.readouterr().out
    assert sorted(path.name for path in (copied / "parties" / "means").glob(f"*{FORMATS[kind].suffix}")) == [
        f"bottom{FORMATS[kind].suffix}",
        f"top{FORMATS[kind].suffix}",
    ]
    saved = load_parties(copied)
    embeddings = bottoms(copied, kind, NAMES, saved, files)
    top = FORMATS[kind].load(copied / "parties" / "means" / f"top{FORMATS[kind].suffix}")
    expected: Predictions = predict_parties(saved, files)[0]
    assert torch.allclose(top(torch.stack(embeddings).sum(0)), expected.values, atol=1e-5)
    assert not torch.allclose(top(embeddings[0]), expected.values, atol=1e-3)


def test_parts_side_by_side_and_a_label_party_without_columns(tmp_path: Path) -> None:
    """The file says in which order; a party's own folder is enough, as on a device."""
    groups = """'partition.parties={a:[],b:"mean *",c:["* error","worst *"]}' vertical.label_party=a"""
    run = run_parties_in(tmp_path / "run", f"{ROUNDS} vertical/fusion=concat {groups}")
    saved, source = load_parties(run), BreastCancer()
    test, features = source.pooled().test, source.schema().features
    assert test is not None
    rows = [[features[at] for at in range(30)], *test.inputs.tolist()]
    files = dict.fromkeys("abc", write(tmp_path / "all.csv", rows))  # each reads its own columns of it
    found, _ = predict_parties(saved, files)
    right = (found.values.argmax(1) == test.targets).double().mean()
    assert float(right) == pytest.approx(summary_of(run)["test_accuracy"], abs=1e-9)
    for name in "abc":
        assert script("export", run / "parties" / name, "--format", "torchscript") == 0
    assert not (run / "parties" / "a" / "bottom.torchscript").exists()
    path = run / "parties" / "a" / "top.torchscript"
    with zipfile.ZipFile(path) as archive:
        said = json.loads(archive.read(next(name for name in archive.namelist() if name.endswith(FACTS))))
    top = FORMATS["torchscript"].load(path)
    assert (said["fusion"], said["fused"], said["input_shape"]) == ("concatenation", ["b", "c"], [8])
    fused = torch.cat(bottoms(run, "torchscript", said["fused"], saved, files), 1)
    assert torch.allclose(top(fused), found.values, atol=1e-5)


def test_what_cannot_be_exported_leaves_nothing(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, said in (
        ((copied,), "--party : name the party whose part to export: errors, means, worst"),
        ((copied, "--party", "bank"), "--party bank: name the party"),
        ((copied / "parties" / "worst", "--party", "means"), "holds the part of worst"),
        ((copied, "--party", "worst", "--output", tmp_path / "none"), f"{tmp_path}/none: there is no such folder"),
        ((copied, "--party", "worst", "--best"), "--best: parties keep"),
    ):
        assert script("export", *arguments, "--format", "torchscript") == 2
        assert said in capsys.readouterr().err
    assert not list(copied.rglob("*.torchscript"))
