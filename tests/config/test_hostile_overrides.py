"""Overrides from a hostile server: no file outside conf/ and the operator's folders is opened or looked for, and
nothing that only the device knows comes back."""

import copy
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from flwr.app import Context, RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from fedapp.client.handlers import _run, handle
from fedapp.common.errors import ConfigError
from fedapp.config import CONF_DIR, compose, split_overrides
from fedapp.config.compose import from_hydra
from fedapp.wire.preflight import unpack_preflight

MARK = "planted-marker-6f1d"
opened: list[str] | None = None  # paths, while a test listens


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if opened is not None and event in ("open", "os.listdir", "os.scandir"):
        opened.append(os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else "")


sys.addaudithook(_hook)


@contextmanager
def listening() -> Iterator[list[str]]:
    """Every path that is opened or listed, and every one whose existence or size is asked for."""
    global opened
    found: list[str] = []
    real = {name: getattr(os, name) for name in ("stat", "lstat", "access")}

    def noting(name: str) -> Any:
        def asked(path: Any, *arguments: Any, **options: Any) -> Any:
            if isinstance(path, str | bytes | os.PathLike):
                found.append(os.fsdecode(path))
            return real[name](path, *arguments, **options)

        return asked

    opened = found
    try:
        with patch.multiple(os, **{name: noting(name) for name in real}):
            yield found
    finally:
        opened = None


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Files that a server would like to read, and an environment that it would like to know."""
    place = tmp_path_factory.mktemp("secrets")
    for name in ("secret.yaml", "secret.csv", "secret.safetensors", "secret"):
        (place / name).write_text(f"_target_: {MARK}\nkey: {MARK}\n")
    with patch.dict(os.environ, {"FEDAPP_TEST_SECRET": MARK}):
        yield place


def within(path: str, *folders: Path) -> bool:
    full = Path(path).resolve()
    return any(full.is_relative_to(folder) for folder in folders)


# --- what a server may send -----------------------------------------------------------------------------------------

KEYS = st.sampled_from(
    [
        *(
            "data",
            "model",
            "task",
            "strategy",
            "privacy",
            "secure_aggregation",
            "compression",
            "downlink",
            "partition",
            "experiment",
        ),
        *("optimizer", "lr_schedule@client_lr", "lr_schedule@server_lr", "federation/personal", "federation.personal"),
        *("task/loss", "task.loss", "task/kind", "metric", "data@model", "data@_global_", "/data", "data/..", "hydra"),
        *("hydra.searchpath", "hydra/launcher", "data.path", "data.test_path", "data.dataset", "model.pretrained"),
        *("model.weights_sha256", "run.output_dir", "run.resume", "run.initial_model", "run.device", "foo/bar"),
        *(
            "federation",
            "defaults",
            "data._target_",
            "strategy.aggregation._target_",
            "task.metrics",
            "conf",
            "..",
            ".",
        ),
    ]
)
PREFIXES = st.sampled_from(["", "", "", "+", "++", "~"])


def values(place: Path) -> st.SearchStrategy[str]:
    up = "/".join([".."] * (len(CONF_DIR.parts) + 1))
    secret = str(place / "secret")
    paths = [
        *(f"{up}{secret}", f"{up}{secret}.yaml", secret, f"{secret}.yaml", f"{secret}.csv", f"{secret}.safetensors"),
        *(f"csv/../{up}{secret}", f"./{up}{secret}", f"digits/{up}{secret}", f"\\{up}{secret}", f"..{secret}"),
        *("digits", "csv", "none", "null", "true", "mlp", "head", "secaggplus", "dp_sgd", "[csv,digits]", "1", "-1"),
        *("${oc.env:FEDAPP_TEST_SECRET}", "${oc.env:HOME}", "$\\{oc.env:FEDAPP_TEST_SECRET}", "~", "file://" + secret),
        *(
            "\u2025/\u2025",
            "\uff0e\uff0e\uff0f\uff0e\uff0e" + secret,
            "%2e%2e%2f" + secret,
            "a\u0000b",
            "{a:{b:[c]}}",
            "choice(csv,digits)",
        ),
        *("range(1,3)", "glob(*)", "'" + up + secret + "'", '"' + up + secret + '"', f"[{up}{secret}]", "[[[]]]"),
        *("{_target_:torch.optim.SGD}", "[{_target_:torch.optim.SGD}]", "{a:[{$5f$target_:torch.optim.SGD}]}"),
        *(f"{{_target_:{MARK}}}", f"{{path:{secret}}}", f"[{secret},digits]", "0" * 64),
    ]
    return st.sampled_from(paths) | st.text(max_size=12)


@st.composite
def hostile(draw: st.DrawFn, place: Path) -> list[str]:
    count = draw(st.integers(1, 3))
    return [f"{draw(PREFIXES)}{draw(KEYS)}={draw(values(place))}" for _ in range(count)]


def deep_code(node: Any, depth: int = 0) -> list[str]:
    """Every `_...` key that is deeper in the config than an option's own top."""
    node = vars(node) if is_dataclass(node) and not isinstance(node, type) else node
    items = list(node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ())
    top = isinstance(node, dict) and "_target_" in node and depth == 0
    own = [name for name, _ in items if str(name).startswith("_") and not (top and name == "_target_")]
    inside = depth + (isinstance(node, list) or (isinstance(node, dict) and "_target_" in node))
    return own + [found for _, value in items for found in deep_code(value, inside)]


# --- the composer ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_composing_opens_nothing_but_conf(planted: Path, data: st.DataObject) -> None:
    overrides = data.draw(hostile(planted))
    with listening() as found:
        try:
            made = compose(overrides)
            assert deep_code(vars(made)) == []
            text = str(made)
        except ConfigError as error:
            text = str(error)
    assert not [path for path in found if within(path, planted)], overrides
    told = MARK in text and not any(MARK in override for override in overrides)
    assert not told, text


SGD = "torch.optim.SGD"


@pytest.mark.parametrize(
    "override",
    [
        f"data.label={{_target_:{SGD}}}",
        f"data.categorical={{a:{{$5f$target_:{SGD}}}}}",
        f"data.categorical={{a:{{_$74$arget_:{SGD}}}}}",
        f"data.numeric=[x,{{_target_:{SGD}}}]",
        f"+data.x={{a:[[{{_target_:{SGD}}}]]}}",
        "+data.x={_partial_:true}",
        "optimizer.lr={_target_:fedapp.data.sources.hub.Hub,dataset:x,label:a,image:b}",
        f"data.label={{ _target_ : '{SGD}' , weird: a'b }}",
    ],
)
def test_no_value_of_an_override_holds_code(override: str) -> None:
    """Hydra makes what a nested `_target_` names, with the option that it is an argument of."""
    table = ["data=csv", "data.label=a", "data.numeric=[x]", "data.categorical={}", "data.classes=[a,b]"]
    with pytest.raises(ConfigError, match="code is chosen in a YAML file under conf/"):
        compose([*table, override])


def test_code_of_another_place_is_refused_however_it_got_into_the_config() -> None:
    """Only what a file under conf/ gives this very place: not the loss's for the optimizer, nor below a node's top."""
    whole = OmegaConf.structured(compose([]))
    for key, target in {
        "optimizer._target_": "torch.optim.Adam",  # committed, for the server
        "strategy.aggregation._target_": SGD,
        "data._target_": SGD,
        "client_lr._target_": SGD,
        "optimizer.lr": {"_target_": SGD},
        "data.label": [{"_target_": SGD}],
    }.items():
        changed = copy.deepcopy(whole)
        OmegaConf.update(changed, key, target, force_add=True)
        with pytest.raises(ConfigError, match="code is chosen in a YAML file under conf/"):
            from_hydra(changed)
    assert from_hydra(whole) == compose([])


@pytest.mark.parametrize(
    "overrides",
    [
        ["data=../../../../{secret}"],
        ["data='../../../../{secret}'"],
        ["+data=[csv,../../../../{secret}]"],
        ["experiment=../../../../{secret}"],
        ["+foo/bar=../../../../{secret}"],
        ["task/loss=../../../../../{secret}"],
        ["lr_schedule@client_lr=../../../../{secret}"],
    ],
)
def test_a_choice_that_is_no_option_is_refused_before_any_file_is_read(planted: Path, overrides: list[str]) -> None:
    given = [override.replace("{secret}", f"../../../../../..{planted / 'secret'}") for override in overrides]
    with listening() as found, pytest.raises(ConfigError, match=r"no option|no group") as refused:
        compose(given)
    assert not [path for path in found if within(path, planted)]
    assert MARK not in str(refused.value)


def test_options_that_are_there_can_be_chosen_by_whichever_way() -> None:
    for overrides in (
        ["data=breast_cancer", "model=mlp"],
        ["experiment=[digits_dp]"],
        ["federation.personal=head"],
        ["federation/personal=head"],
        ["lr_schedule@client_lr=cosine"],
        ["task/loss='cross_entropy'"],
    ):
        compose(overrides)


# --- a device's preflight -------------------------------------------------------------------------------------------


def device(tmp_path: Path, **more: Any) -> dict[str, Any]:
    table = tmp_path / "own" / "table.csv"
    table.parent.mkdir(exist_ok=True)
    table.write_text(f"age,ill\n40,no\n50,yes\n{MARK},yes\n")
    return {"data-path": str(table), "partition-id": 0, "keep-path": str(tmp_path / "keep"), **more}


def told(node_config: dict[str, Any], overrides: str) -> str:
    """All that a preflight report says in words."""
    context = Context(1, 1, node_config, RecordDict(), {"overrides": overrides})
    try:
        report = unpack_preflight(handle("query", RecordDict(), context))
    except RuntimeError as error:
        return str(error)
    return " ".join([report.fault, *report.faults, report.code_path, report.site]).strip()


TABLE = (
    "data=csv data.label=ill data.numeric=[age] data.categorical={} data.classes=[no,yes] data.scaling=none"
    " model=logistic_regression"
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_preflight_tells_nothing_that_did_not_come_in_the_message(
    planted: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    overrides = data.draw(hostile(planted))
    own = tmp_path_factory.mktemp("device")
    weights = own / "weights"
    weights.mkdir()
    (weights / "net.safetensors").write_bytes(MARK.encode())
    node_config = device(own, **{"weights-dir": str(weights)})
    line = " ".join([TABLE, *(f"'{override}'" for override in overrides if "'" not in override)])
    _run.cache_clear()
    with listening() as found:
        text = told(node_config, line)
    assert not [path for path in found if within(path, planted)], overrides
    assert MARK not in text or MARK in line
    assert str(own) not in text


def test_what_is_wrong_with_data_stays_in_the_devices_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = told(device(tmp_path), TABLE)
    assert "its data does not fit the task (see the client's log)" in text
    assert MARK not in text
    assert str(tmp_path) not in text
    assert MARK in caplog.text


NETWORK = (
    "data=image_folder data.size=32 data.classes=[dark,light] model=torchvision model.name=shufflenet_v2_x0_5"
    " model.norm=batch model.trainable=head"
)


@pytest.mark.slow
def test_weights_come_from_the_operators_folder_and_a_server_learns_of_no_file(planted: Path, tmp_path: Path) -> None:
    """Absent, of another SHA-256, no weights at all: a server is told the same of each."""
    (tmp_path / "images").mkdir()
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "net.safetensors").write_bytes(b"no weights")
    config: dict[str, Any] = {"data-path": str(tmp_path / "images"), "partition-id": 0}
    cases = {
        "a file outside": (config | {"weights-dir": str(weights)}, planted / "secret.safetensors", None),
        "a file that is not there": (config | {"weights-dir": str(weights)}, Path("/nowhere/absent.safetensors"), None),
        "no folder of the operator's": (config, planted / "secret.safetensors", "0" * 64),
        "another SHA-256": (config | {"weights-dir": str(weights)}, weights / "net.safetensors", "0" * 64),
        "no weights": (config | {"weights-dir": str(weights)}, weights / "net.safetensors", None),
    }
    said = {}
    for name, (node_config, path, digest) in cases.items():
        _run.cache_clear()
        with listening() as found:
            said[name] = told(node_config, f"{NETWORK} model.pretrained={path} model.weights_sha256={digest or 'null'}")
        assert not [looked for looked in found if within(looked, planted)], name
    assert set(said.values()) == {"the run's config does not work on this device (see the client's log)"}, said


def test_a_tokenizer_comes_from_the_operators_folder_and_a_server_learns_of_no_file(
    planted: Path, tmp_path: Path
) -> None:
    (tmp_path / "said.txt").write_text(f"the river was {MARK}\n")
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "no.json").write_text("no tokenizer")
    # The library opens files where no Python sees it; one that is read shows in what comes of it.
    good = Tokenizer(WordLevel({"<unk>": 0, "the": 1, "river": 2, "was": 3}, unk_token="<unk>"))
    good.pre_tokenizer = Whitespace()
    good.save(str(tmp_path / "good.json"))
    config: dict[str, Any] = {"data-path": str(tmp_path / "said.txt"), "partition-id": 0}
    cases = {
        "a file outside": (config | {"weights-dir": str(weights)}, planted / "secret.safetensors"),
        "no folder of the operator's": (config, planted / "secret.safetensors"),
        "no tokenizer": (config | {"weights-dir": str(weights)}, weights / "no.json"),
        "a tokenizer outside": (config | {"weights-dir": str(weights)}, tmp_path / "good.json"),
    }
    said = {}
    for name, (node_config, path) in cases.items():
        _run.cache_clear()
        with listening() as found:
            said[name] = told(node_config, f"data=text model=lstm partition=iid data.tokenizer={path}")
        assert not [looked for looked in found if within(looked, planted)], name
    assert set(said.values()) == {"the run's config does not work on this device (see the client's log)"}, said
    good.save(str(weights / "good.json"))
    _run.cache_clear()
    overrides = f"data=text model=lstm partition=iid data.tokenizer={tmp_path / 'elsewhere' / 'good.json'}"
    assert told(config | {"weights-dir": str(weights)}, overrides) not in said.values()  # it takes the operator's own


def test_a_setting_of_the_operators_is_not_repeated_to_the_server(tmp_path: Path) -> None:
    text = told(device(tmp_path, **{"max-epsilon": MARK}), TABLE)
    assert text == "its node-config does not go with this run (see the client's log)"


def test_in_a_simulation_everything_is_said(tmp_path: Path) -> None:
    """There data and files are those of whoever asks."""
    node_config = {"partition-id": 0, "num-partitions": 1}
    text = told(node_config, f"{TABLE} data.path={tmp_path / 'absent.csv'}")
    assert "absent.csv" in text
    assert split_overrides("a=1 b=2") == ["a=1", "b=2"]
