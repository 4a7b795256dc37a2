"""A run is judged on what it has not learnt from."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from every_task import LANGUAGE
from safetensors.torch import save_file

from fedapp.common.errors import ConfigError
from fedapp.compare.token_baselines import Baselines
from fedapp.config import compose
from fedapp.server.run import settled

OVERRIDES = [*LANGUAGE.split(), "federation.num_clients=3", "train.val_fraction=0.2"]


@pytest.fixture(scope="module")
def made() -> Baselines:
    return Baselines(compose(OVERRIDES))


def saved(made: Baselines, folder: Path, *changes: str) -> Path:
    """The directory of a run with these overrides besides; YAML takes JSON, too."""
    config = settled(compose([*OVERRIDES, *changes]), made.parts)
    (folder / "config.yaml").write_text(json.dumps(asdict(config)))
    save_file(made.start, folder / "model.safetensors")
    return folder


def test_a_run_of_the_same_text_is_judged(made: Baselines, tmp_path: Path) -> None:
    made.run(saved(made, tmp_path, "federation.num_rounds=2", "optimizer.lr=0.1"))
    assert {key for name, key in made.scores if name == f"federated ({tmp_path.name})"} == {"lines", "clients"}


@pytest.mark.parametrize(
    "change",
    ["data.split_seed=7", "run.seed=5", "train.val_fraction=0.3", "federation.num_clients=4", "model.hidden=13"],
)
def test_a_run_that_had_other_text_is_refused(made: Baselines, change: str, tmp_path: Path) -> None:
    key, _, value = change.partition("=")
    with pytest.raises(ConfigError, match=rf"--run .*: is of other data or another model[^$]*{key}=.*: was {value}"):
        made.run(saved(made, tmp_path, change))


def test_a_run_without_a_config_is_refused(made: Baselines, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml: is no config of a run"):
        made.run(tmp_path)
