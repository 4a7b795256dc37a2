"""Runs whose examples have several labels at once: trained, judged, predicted, exported, with every protection."""

import csv
import json
import zipfile
from pathlib import Path

import pytest
import torch
from in_process import run_in_process
from safetensors.torch import load_file
from saved_runs import load_script
from secure_runs import summary
from visits import COLUMNS, LABELS, LISTED, write_columns, write_list

from fedapp.client.build import build_site
from fedapp.common.errors import ConfigError
from fedapp.config import compose
from fedapp.data.shards import local_data_path
from fedapp.inference.formats import FORMATS
from fedapp.launch.check import check
from fedapp.learning.build import build_parts
from fedapp.learning.build_shards import build_shards
from fedapp.privacy.limits import own_limits
from fedapp.server.check_config import check_config
from fedapp.server.run import settled

RUN = (
    "data=csv model=logistic_regression partition=iid federation.num_clients=3 federation.fraction_train=1"
    " federation.num_rounds=6 train.local_epochs=2 optimizer.lr=0.3"
)
METRICS = "task.metrics=[label_auc,label_average_precision,subset_accuracy,hamming_loss]"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_columns(tmp_path_factory.mktemp("data") / "visits.csv", 600)


@pytest.fixture(scope="module")
def run(table: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run") / "run"
    return run_in_process(directory, f"{RUN} data.path={table} {COLUMNS} {METRICS}", report=True)


def test_it_trains_and_says_how_each_label_is_found(run: Path) -> None:
    found = summary(run)
    assert found["test_label_auc"] > 0.9
    assert found["test_label_f1_micro"] > 0.8
    assert found["test_subset_accuracy"] > 0.6
    assert found["test_hamming_loss"] < 0.2
    assert "hamming_loss" in found["lower_is_better"]
    assert [about["label"] for about in found["by_label"]] == list(LABELS)
    rash = found["by_label"][2]
    assert 0 < rash["examples"] < 15
    assert rash["auc"] > 0.9
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<h2>Labels</h2>" in page
    assert page.count("rash") >= 1


def test_what_it_predicts_has_a_column_for_each_label(
    run: Path, table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "p.csv"
    assert load_script("predict").main([str(run), table, "--output", str(output)]) == 0
    with output.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["name", "prediction", *(f"probability of {label}" for label in LABELS)]
    with Path(table).open(newline="", encoding="utf-8") as file:
        true = list(csv.DictReader(file))
    right = 0
    for row, actual in zip(rows, true, strict=True):
        said = [label for label in LABELS if float(row[f"probability of {label}"]) >= 0.5]
        assert row["prediction"] == ";".join(said)
        right += said == [label for label in LABELS if actual[label] == "1"]
    assert right / len(rows) > 0.6
    capsys.readouterr()
    assert load_script("predict").main([str(run), table]) == 0
    assert len(capsys.readouterr().out.splitlines()[0].split("\t")) == 3


def test_an_export_gives_the_probability_of_each_label(run: Path, table: str, tmp_path: Path) -> None:
    path = tmp_path / "model.torchscript"
    code = load_script("export").main([str(run), "--format", "torchscript", "--output", str(path), "--check", table])
    assert code == 0
    with zipfile.ZipFile(path) as archive:
        facts = next(name for name in archive.namelist() if name.endswith("/fedapp.json"))
        assert json.loads(archive.read(facts))["labels"] == list(LABELS)
    chances = FORMATS["torchscript"].load(path)(torch.zeros(4, 2))
    assert chances.shape == (4, 3)
    assert ((chances > 0) & (chances < 1)).all()


def test_a_column_of_lists_gives_the_same_model(run: Path, tmp_path: Path) -> None:
    listed = write_list(tmp_path / "l.csv", 600, none="none")
    same = run_in_process(
        tmp_path / "r",
        f"{RUN} data.path={listed} {LISTED} data.no_label=none data.classes=[fever,cough,rash] {METRICS}",
    )
    assert summary(same)["model_sha256"] == summary(run)["model_sha256"]


def test_balanced_weights_find_the_rare_label(run: Path, table: str, tmp_path: Path) -> None:
    weighted = run_in_process(
        tmp_path / "r",
        f"{RUN} data.path={table} {COLUMNS} {METRICS} task/loss=binary_cross_entropy task.loss.class_weights=balanced",
    )
    weights = load_file(weighted / "model.safetensors")["output.weights"]
    shares = 0.5 / weights[1]
    assert weights.shape == (2, 3)
    assert torch.allclose(0.5 / weights[0] + shares, torch.ones(3), atol=1e-5)
    assert shares[2] < 0.08
    plain, found = (summary(directory)["by_label"][2] for directory in (run, weighted))
    assert found["f1"] > (plain["f1"] or 0)


def test_dp_sgd_and_secure_aggregation_train_it(table: str, tmp_path: Path) -> None:
    given = "data.numeric=[a,b] data.categorical={} data.scaling=given data.means={a:0,b:0} data.deviations={a:1,b:1}"
    final = "federation.final_evaluation=false train.val_fraction=0 task/loss=binary_cross_entropy"
    weights = "task.loss.class_weights={fever:1,cough:1,rash:5}"
    private = run_in_process(
        tmp_path / "dp",
        f"{RUN} data.path={table} {COLUMNS} {given} {final} {weights} privacy=dp_sgd privacy.noise_multiplier=1.0"
        " privacy.target_epsilon=null",
    )
    assert summary(private)["test_label_f1_micro"] > 0.6
    assert summary(private)["epsilon_max"] > 0
    secure = run_in_process(
        tmp_path / "s", f"{RUN} data.path={table} {COLUMNS} {given} {final} secure_aggregation=secaggplus"
    )
    assert summary(secure)["test_label_f1_micro"] > 0.8
    balanced = f"{RUN} data.path={table} {COLUMNS} {given} {final} task.loss.class_weights=balanced"
    for protection in ("privacy=dp_sgd", "secure_aggregation=secaggplus"):
        with pytest.raises(ConfigError, match=r"class_weights=balanced: .*the counts by label"):
            run_in_process(tmp_path / "refused", f"{balanced} {protection}")


def test_a_label_that_the_test_data_lacks_is_named_and_not_compared(table: str, tmp_path: Path) -> None:
    lines = Path(table).read_text().splitlines()
    without = [line for line in lines[1:] if line.endswith(",0")]
    (tmp_path / "test.csv").write_text("\n".join([lines[0], *without[:60]]) + "\n")
    overrides = f"{RUN} data.path={table} {COLUMNS} data.test_path={tmp_path}/test.csv task.metrics=[label_auc]"
    with pytest.raises(ConfigError, match=r"patience_metric=label_auc: .*none without, 'rash'"):
        check_config(compose(f"{overrides} federation.patience_metric=label_auc".split()))
    found = summary(run_in_process(tmp_path / "r", f"{overrides} federation.num_rounds=1"))
    assert found["test_label_auc"] is None
    assert found["by_label"][2] == {"label": "rash", "examples": 0, "average_precision": None, "auc": None, "f1": None}
    assert any("test_label_auc is not defined" in line and "'rash'" in line for line in found["warnings"])


def checked(line: str, directory: Path) -> None:
    """As scripts/run.py checks a run before it starts."""
    config = compose(line.split())
    check(config, directory)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("partition=dirichlet", r"partition_by='label': an example has several labels at once.*partition=iid"),
        ("partition=pathological", r"partition_by='label': an example has several labels at once"),
        ("task=vertical model=mlp", r"task=vertical: predicts one label or number.*fever, cough, rash"),
        ("task/kind=classification", r"task\.kind=classification: the data has no classes"),
        ("task/loss=focal", r"task\.loss=Focal: is a loss for classification.*task/loss=binary_cross_entropy"),
        ("federation.target_accuracy=0.9", r"federation\.target_accuracy: needs a classification task"),
    ],
)
def test_what_cannot_work_is_refused_by_name(table: str, tmp_path: Path, more: str, message: str) -> None:
    line = f"data=csv data.path={table} {COLUMNS} model=mlp partition=iid {more}"
    if "vertical" in more:
        line = line.replace("partition=iid", "partition.parties={x:[a],y:[b]}")
    with pytest.raises(ConfigError, match=message):
        checked(line, tmp_path / "run")


@pytest.mark.parametrize("form", ["columns", "turned", "list"])
def test_a_device_makes_the_same_examples_of_its_own_file(tmp_path: Path, form: str) -> None:
    label = COLUMNS if form != "list" else f"{LISTED} data.no_label=none data.classes=[fever,cough,rash]"
    (tmp_path / "sites").mkdir()
    for site in "ab":
        path = tmp_path / "sites" / f"{site}.csv"
        write_list(path, 50, none="none") if form == "list" else write_columns(
            path, 50, order=(2, 1, 0) if form == "turned" and site == "a" else (0, 1, 2)
        )
    config = compose(
        f"data=csv data.path={tmp_path}/sites {label} model=mlp data.test_fraction=0 data.group=site partition=natural"
        " federation.num_clients=2".split()
    )
    parts = build_parts(config)
    simulated = build_shards(config, parts).of(0)
    device = settled(config, parts)
    device.data.update(path=None, group=None)
    node_config = {"data-path": str(tmp_path / "sites" / "a.csv"), "partition-id": 0}
    own = build_site(device, local_data_path(node_config), own_limits(node_config)).shards.of(0)
    assert own.train.sha256() == simulated.train.sha256()
    assert own.validation.sha256() == simulated.validation.sha256()


def test_devices_are_told_to_name_the_labels_of_a_list() -> None:
    config = compose(
        ["data=csv", "data.label=tags", "data.label_separator=;", "data.numeric=[a]", "data.categorical={}"]
    )
    with pytest.raises(ConfigError, match=r"data\.classes: must be set where data\.path is not"):
        build_parts(config)
