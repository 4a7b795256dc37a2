"""Overrides with text as people have it: Unicode, spaces, brackets, commas; from argv, a run-config line or a file."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedapp.common.errors import ConfigError
from fedapp.common.override_text import override, pasted
from fedapp.config import as_typed, compose, file_overrides, split_overrides

CSV = ["data=csv", "data.label=y"]
TYPED: list[tuple[str, str, Any]] = [
    ("data.label=Größe", "label", "Größe"),
    ("data.label=诊断", "label", "诊断"),
    ("data.label=Chest pain (type)", "label", "Chest pain (type)"),
    ("data.label='Chest pain (type)'", "label", "Chest pain (type)"),
    ("data.label=what's wrong", "label", "what's wrong"),
    ("data.label=a,b", "label", "a,b"),
    ("data.path=/data/My Data (v2)/t.csv", "path", "/data/My Data (v2)/t.csv"),
    ("data.path=/data/a,b/t.csv", "path", "/data/a,b/t.csv"),
    ("data.path=~/t.csv", "path", "~/t.csv"),
    ("data.path=/data/[x]/{y}/t.csv", "path", "/data/[x]/{y}/t.csv"),
    ("data.classes=[<=50K,>50K]", "classes", ["<=50K", ">50K"]),
    ("data.classes=[0, 1]", "classes", [0, 1]),
    ("data.classes=['<5, low',\">5\"]", "classes", ["<5, low", ">5"]),
    ("data.ignore=[Größe,chest pain (type),'a,b']", "ignore", ["Größe", "chest pain (type)", "a,b"]),
    ("data.categorical={'chest pain (type)':[a,b]}", "categorical", {"chest pain (type)": ["a", "b"]}),
    ("data.categorical={chest pain (type):[a,b]}", "categorical", {"chest pain (type)": ["a", "b"]}),
    ("data.categorical={Größe:[klein,groß],x:[1,2]}", "categorical", {"Größe": ["klein", "groß"], "x": [1, 2]}),
    ("data.categorical={'1':['a:b'],null:[c,d]}", "categorical", {"1": ["a:b"], "null": ["c", "d"]}),
    ("data.delimiter=\\t", "delimiter", "\\t"),
    ("data.delimiter=;", "delimiter", ";"),
    ("data.delimiter=,", "delimiter", ","),
    ("data.more_missing_values=[?,-999,n.b.]", "more_missing_values", ["?", -999, "n.b."]),
]


@pytest.mark.parametrize(("typed", "key", "value"), TYPED, ids=[typed for typed, _, _ in TYPED])
def test_text_comes_through_both_doors(typed: str, key: str, value: Any) -> None:
    assert compose([*CSV, typed]).data[key] == value  # scripts/run.py: as a shell gives it
    line = shlex.join([*CSV, typed])
    assert compose(split_overrides(line)).data[key] == value  # flwr run: the line of a run-config
    once = as_typed([typed])
    assert as_typed(once) == once


@pytest.mark.parametrize(
    "one",
    [
        "optimizer.lr=0.1",
        "data.classes=[a,b]",
        "+x=1",
        "~data.path",
        "data.path='/a b'",
        "lr_schedule@client_lr=cosine",
    ],
)
def test_what_the_grammar_takes_stays_as_it_is(one: str) -> None:
    assert as_typed([one]) == [one]


def test_values_to_try_stay_values_to_try() -> None:
    assert as_typed(["data.label=a,b"], sweeps=True) == ["data.label=a,b"]
    assert as_typed(["optimizer.lr=0.1,0.2"]) == ["optimizer.lr=0.1,0.2"]
    assert as_typed(["data.label=Größe,alter"], sweeps=True) == ['data.label="Größe",alter']
    with pytest.raises(ConfigError, match="is a sweep"):
        compose(["optimizer.lr=0.1,0.2"])


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.text(min_size=1), st.text(min_size=1))
def test_whatever_is_written_as_an_override_is_read_back(key: str, text: str) -> None:
    if "${" in text or "$" in key or key.startswith("_"):
        return  # refused; encoded keys
    for name, one in (("label", text), ("ignore", [text, "b"]), ("categorical", {key: [text]})):
        typed = shlex.split(pasted(f"data.{name}", one))
        assert compose(["data=csv", "data.label=y", *typed]).data[name] == one


def test_what_is_not_clear_is_refused_with_a_line_to_paste() -> None:
    with pytest.raises(ConfigError, match="is a sweep") as raised:
        compose([*CSV, "data.label=choice(a,b)"])
    line = str(raised.value).rpartition("paste ")[2]
    assert compose([*CSV, *shlex.split(line)]).data["label"] == "choice(a,b)"
    with pytest.raises(ConfigError, match=r"scripts/run\.py --config"):
        compose([*CSV, "größe=1"])


@pytest.mark.parametrize(
    "one", ["data.label=${oc.env:HOME}ö", "data.categorical={'_target_':x}", "data.categorical={ö:[${x}]}"]
)
def test_quoting_opens_no_door(one: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be sent|code is chosen"):
        compose([*CSV, one])


def test_a_key_cannot_hide_code() -> None:
    hidden = (
        override("data.categorical", {"ö_target_": ["os.system"]})
        .replace("$f6$", "$5f$")
        .replace("_target_", "target_")
    )
    with pytest.raises(ConfigError, match="code is chosen"):
        compose([*CSV, hidden])


FILE = """
data: csv
model: mlp
lr_schedule@client_lr: cosine
data.path: /data/My Data (v2)/a,b.csv
data.label: Größe
data.categorical:
  chest pain (type): [a, "b, c"]
  诊断: ["1", 2]
federation:
  num_clients: 3
  personal: head
strategy.server_optimizer:
  lr: 0.5
run:
  seed: 7
"""


def test_a_file_needs_no_quoting(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(FILE, encoding="utf-8")
    config = compose(file_overrides(path))
    assert config.data["path"] == "/data/My Data (v2)/a,b.csv"
    assert config.data["label"] == "Größe"
    assert config.data["categorical"] == {"chest pain (type)": ["a", "b, c"], "诊断": ["1", 2]}
    assert (config.federation.num_clients, config.run.seed) == (3, 7)
    assert config.strategy.server_optimizer["lr"] == 0.5
    assert config.client_lr == compose(["lr_schedule@client_lr=cosine"]).client_lr
    assert config.model["_target_"] == compose(["model=mlp"]).model["_target_"]


def test_a_file_may_look_like_an_experiment(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("defaults:\n  - override /data: csv\n  - _self_\ndata:\n  path: /t.csv\n  label: y\n")
    assert compose(file_overrides(path)).data["path"] == "/t.csv"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("data: csv\ndata:\n  path: x\n", ["line 2", "'data' is there twice", "data.path"]),
        ("- a\n", ["must hold settings"]),
        ("a: [\n", ["cannot be read as YAML", "line 2"]),
        ("a: &x [1]\nb: *x\n", ["alias"]),
        ("defaults: [a]\n", ["defaults: a", "override /data: csv"]),
        ("federation:\n  num_round: 3\n", ["federation.num_round", "federation.num_rounds"]),
        ("data: nothing\n", ["nothing", "breast_cancer"]),
        ("data:\n  _target_: os.system\n", ["code is chosen"]),
        ("run.output_dir: ${oc.env:HOME}\n", ["cannot be sent"]),
        ("hydra:\n  verbose: true\n", ["hydra"]),
    ],
)
def test_a_file_is_checked_like_conf(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        compose(file_overrides(path))
    assert [part for part in parts if part not in str(raised.value)] == [], str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read as YAML.*No such file"):
        file_overrides(tmp_path / "none.yaml")
