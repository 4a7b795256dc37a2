"""What scripts/run.py checks before it starts anything."""

import shlex
from pathlib import Path

import pytest
from tables import CSV, make_place

from fedapp.common.cores import allowed_cores
from fedapp.common.errors import FedappError
from fedapp.common.override_text import quoted
from fedapp.config import compose, split_overrides
from fedapp.launch.check import absolute_paths, check
from fedapp.launch.flower_engine import federation_config
from fedapp.server.build import output_directory

REFUSED = [
    ("federation.num_clients=0", ["federation.num_clients=0", "at least 1"]),
    ("federation.min_clients=21", ["federation.min_clients=21", "federation.num_clients=20"]),
    (
        "strategy=multi_krum strategy.aggregation.num_malicious=10",
        ["num_malicious=10", "needs 23 clients", "federation.num_clients=20"],
    ),
    ("strategy=fedyogi strategy.server_optimizer.lr=-1", ["strategy.server_optimizer", "Yogi", "-1"]),
    ("lr_schedule@client_lr=cosine client_lr.T_max=-3", ["client_lr.T_max=-3", "at least 1"]),
    ("client_lr=cosine", ["client_lr", "lr_schedule@client_lr=cosine"]),
    ("train.proximal_mu=1e300", ["train.proximal_mu=1e+300", "at most"]),
    ("federation.patience_metric=auc", ["federation.patience_metric=auc", "loss, accuracy"]),
    ("run.resume=/nowhere/at/all", ["run.resume=/nowhere/at/all", "no such run directory"]),
    ("strategy.server_optimizer.lr=-1", ["strategy.server_optimizer", "-1"]),
    ("federation.num_round=3", ["federation.num_round", "federation.num_rounds"]),
    ("data=nothing", ["nothing", "breast_cancer"]),
    ("federation.num_clients=5000", ["federation.num_clients=5000", "1437"]),
    (f"{CSV}good.csv data.label=result", ["good.csv", "result", "outcome"]),
    (f"{CSV}nan.csv data.numeric=[age]", ["nan.csv", "age", "row 7"]),
    (f"{CSV}text.csv data.numeric=[age]", ["text.csv", "age", "young", "row 7"]),
    (f"{CSV}good.csv data.classes=[well,unwell]", ["good.csv", "ill", "'well', 'unwell'"]),
    ("data=image_folder data.path=images", ["broken.png"]),
    ("run.output_dir={place}/file/run", ["run.output_dir", "file/run", "cannot be written"]),
]


@pytest.mark.parametrize(("overrides", "parts"), REFUSED, ids=[overrides for overrides, _ in REFUSED])
def test_refused_with_one_message(tmp_path: Path, overrides: str, parts: list[str]) -> None:
    place = make_place(tmp_path)
    line = (
        overrides.format(place=place)
        .replace("data.path=", f"data.path={place}/")
        .replace(f"{place}/{place}", f"{place}")
    )
    with pytest.raises(FedappError) as caught:
        check_line(line, place / "run")
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert not (place / "run").exists()


def check_line(line: str, directory: Path) -> None:
    config = compose(line.split())
    check(config, output_directory(config, directory))


def test_a_sound_config_passes(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    check_line(f"{CSV}{place}/good.csv federation.num_clients=3", place / "run")
    assert (place / "run").is_dir()


def test_relative_data_paths_are_meant_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_place(tmp_path))
    config = compose(f"{CSV}good.csv data.test_path=/elsewhere/test.csv".split())
    assert absolute_paths(config) == [f"data.path='{tmp_path}/good.csv'"]


PATHS = ["plain", "a (1), b", "o'neil", "é ü", "a=b&c#d[x]{y}", "back\\slash", "tail\\", "a\\'b", "$HOME"]


@pytest.mark.parametrize("name", PATHS)
def test_any_path_survives_the_way_to_the_server(name: str) -> None:
    """Through Hydra's grammar, a shell-like line, and back."""
    path = Path("/tmp") / name
    line = shlex.join([f"run.output_dir={quoted(path)}", "run.seed=3"])
    config = compose(split_overrides(line))
    assert config.run.output_dir == str(path)
    assert config.run.seed == 3


def test_supernodes_get_one_core_each() -> None:
    cores = allowed_cores()
    assert federation_config(compose(["run.device=cpu"]))[:2] == [
        f"num-supernodes={cores}",
        "client-resources-num-cpus=1",
    ]
    assert federation_config(compose(["run.device=cpu", "run.num_supernodes=7"]))[0] == "num-supernodes=7"
    assert federation_config(compose(["run.device=cpu", "run.num_supernodes=1"]))[2] == "init-args-num-cpus=1"
