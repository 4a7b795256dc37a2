"""docs/settings.md has every group, option, key, file and field that there is."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from documentation import FENCE, ROOT
from in_process import run_in_process

from fedapp.config import compose

TEXT = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
WORDS = set(re.findall(r"[\w./@-]+", " ".join(re.findall(r"`([^`]+)`", FENCE.sub("", TEXT)))))
OPTIONS = sorted(path.relative_to(ROOT / "conf").with_suffix("") for path in (ROOT / "conf").glob("*/**/*.yaml"))
SECTIONS = {
    "": ("federation", "train", "strategy", "vertical", "run", "task"),
    "privacy=dp_sgd data.scaling=published data=breast_cancer": ("privacy",),
    "privacy=client_dp": ("privacy",),
    "secure_aggregation=secaggplus": ("secure_aggregation",),
    "secure_aggregation=helper": ("secure_aggregation",),
    "secure_aggregation=bfv": ("secure_aggregation",),
    "compression=quantise": ("compression",),
    "compression=top_k": ("compression",),
    "downlink=differences": ("downlink",),
    "rounds=buffered": ("rounds",),
}
RUN = "model=logistic_regression federation.num_rounds=1 federation.num_clients=4"


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_options_of_groups_are_there(option: Path) -> None:
    assert option.name in WORDS
    assert any(word == str(option.parent) or word.startswith(f"{option.parent}@") for word in WORDS) or (
        str(option.parent).replace("/", ".") in WORDS
    ), f"group {option.parent}"


@pytest.mark.parametrize("overrides", SECTIONS)
def test_keys_are_there(overrides: str) -> None:
    config = asdict(compose(overrides.split()))
    keys = {f"{section}.{key}" for section in SECTIONS[overrides] for key in config[section]}
    missing = keys - WORDS - {key for key in keys if key.endswith((".name", "._target_", ".kind"))}
    assert missing == set()


@pytest.mark.slow  # a whole federation
def test_files_and_fields_of_a_run_are_there(tmp_path: Path) -> None:
    directory = run_in_process(tmp_path / "run", RUN, report=True)
    names = {path.name for path in directory.iterdir() if not path.name.startswith(".")}
    assert {name for name in names if name not in WORDS and f"{name}/" not in WORDS} == set()
    for name in ("metrics.jsonl", "clients.jsonl"):
        for line in (directory / name).read_text().splitlines():
            assert {key for key in json.loads(line) if key not in WORDS} == set(), name
    summary = json.loads((directory / "summary.json").read_text())
    assert {key for key in summary if key not in WORDS} == set()
