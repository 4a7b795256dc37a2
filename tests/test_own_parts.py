"""From outside the package, without an edit: a module and a YAML file add a data set, a model, a loss with its metric,
an update step and an aggregation protocol, and a run uses each."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT, copy_of_this_checkout, run_script
from in_process import InProcessGrid, run_in_process, run_on
from own_conf import conf_of_own

from fedapp.common.errors import ConfigError
from fedapp.config import CONF_DIR, compose
from fedapp.server.check_config import check_config

OWN = {
    "data/two_blobs": "_target_: own_parts.TwoBlobs\nnum_examples: 300\nnumbers: false\n",
    "model/bottleneck": "_target_: own_parts.bottleneck\nwidth: 8\n",
    "task/loss/log_cosh": "_target_: own_parts.LogCosh\nscale: 1.0\n",
    "metric/largest_error": "_target_: own_parts.LargestError\n",
    "compression/bf16": "_target_: own_parts.RoundToBf16\n",
    "compression/halving": "_target_: own_parts.Halving\n",
    "secure_aggregation/float64": "_target_: own_parts.PlainFloat64\n",
}
FEW = "federation.num_clients=4 federation.num_rounds=3 federation.fraction_train=1 partition=iid"
DIGITS = f"model=mlp {FEW}"


def add_to(conf: Path, module: str = "own_parts") -> None:
    for name, text in OWN.items():
        (conf / f"{name}.yaml").write_text(text.replace("own_parts", module))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This checkout's conf/ with the files of OWN in it, for runs in this process."""
    conf = Path(shutil.copytree(CONF_DIR, tmp_path / "conf"))
    add_to(conf)
    with conf_of_own(monkeypatch, conf):
        yield


def summary(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "summary.json").read_text()))


def last_round(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "metrics.jsonl").read_text().splitlines()[-1]))


def run(tmp_path: Path, overrides: str, name: str = "run") -> dict[str, Any]:
    return summary(run_in_process(tmp_path / name, overrides))


def test_a_data_set_and_a_model(own: None, tmp_path: Path) -> None:
    found = run(tmp_path, f"data=two_blobs model=bottleneck {FEW}")
    assert found["test_accuracy"] > 0.9
    assert found["parameters"] == (2 * 8 + 8) + (8 * 2 + 2)


def test_a_loss_with_its_metric(own: None, tmp_path: Path) -> None:
    overrides = f"data=two_blobs data.numbers=true model=bottleneck task.metrics=[largest_error] {FEW}"
    plain = run(tmp_path, overrides, "plain")
    found = run(tmp_path, f"{overrides} task.loss=log_cosh", "own")
    assert found["test_largest_error"] > found["test_mae"] > 0
    assert "largest_error" in found["lower_is_better"]
    assert found["model_sha256"] != plain["model_sha256"]


def test_a_loss_of_another_kind_is_refused(own: None) -> None:
    with pytest.raises(Exception, match=r"task\.loss.*LogCosh.*regression"):
        check_config(compose(f"{DIGITS} task.loss=log_cosh".split()))


def test_an_update_step_that_cannot_be_summed(own: None, tmp_path: Path) -> None:
    """Each update travels by itself, in half the bytes, and comes back as float32."""
    found = run(tmp_path, f"{DIGITS} compression=bf16")
    assert found["status"] == "finished"
    assert found["rejected"] == 0
    assert found["test_accuracy"] > 0.5
    one = 2 * found["parameters"]
    sent = last_round(tmp_path / "run")["bytes_up"]
    assert 4 * one < sent < 4 * (one + 1000)


def test_what_is_no_vector_of_the_model_is_rejected(own: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import own_parts

    def short(self: object, vector: Any, weight: float, params: Any, state: Any) -> Any:
        return vector[:-1]

    monkeypatch.setattr(own_parts.RoundToBf16, "on_client", short)
    with pytest.raises(Exception, match="good replies"):
        run(tmp_path, f"{DIGITS} compression=bf16")
    lines = [json.loads(line) for line in (tmp_path / "run" / "clients.jsonl").read_text().splitlines()]
    assert {line["rejected"] is None for line in lines} == {False}


@pytest.mark.slow
def test_an_update_step_with_a_plan_and_a_state(own: None, tmp_path: Path) -> None:
    """With half of each update, one round moves the model half as far; the clients remember how often they trained."""
    once = f"{DIGITS} federation.num_rounds=1"
    grid = InProcessGrid(f"{DIGITS} compression=halving")
    run_on(grid, tmp_path / "states", f"{DIGITS} compression=halving")
    states = {name: record for context in grid.contexts.values() for name, record in context.state.items()}
    assert {name for name in states if name.startswith("steps-")} == {f"steps-{client}" for client in range(4)}
    assert all(float(record["Halving/times"].numpy()[0]) == 3 for record in states.values())
    moved = {
        name: _moved(tmp_path / name, f"{once} {more}")
        for name, more in (("whole", ""), ("half", "compression=halving"))
    }
    assert moved["half"] == pytest.approx(moved["whole"] / 2, rel=1e-3)


def _moved(directory: Path, overrides: str) -> float:
    from safetensors.torch import load_file

    run_in_process(directory, overrides)
    states = [load_file(directory / "checkpoint" / f"round-{number:05d}.safetensors") for number in (0, 1)]
    names = [name for name in states[0] if name.startswith("model/")]
    return sum(float((states[1][name] - states[0][name]).square().sum()) for name in names) ** 0.5


def test_a_step_and_a_protocol_that_do_not_go_together(own: None) -> None:
    with pytest.raises(Exception, match=r"compression.*RoundToBf16.*summed.*secaggplus"):
        check_config(compose(f"{DIGITS} compression=bf16 secure_aggregation=secaggplus".split()))


CLIENT_DP = "privacy=client_dp privacy.target_epsilon=null privacy.accountant=rdp"


@pytest.mark.slow
@pytest.mark.parametrize(("step", "share"), [("none", 1.0), ("halving", 0.5), ("bf16", 1.0)])
def test_a_step_of_ones_own_with_a_trusted_server(own: None, tmp_path: Path, step: str, share: float) -> None:
    """What it makes of an update is clipped once more: without noise the mean moves the model by the norm at most."""
    quiet = f"{DIGITS} {CLIENT_DP} privacy.noise_multiplier=0 privacy.clipping_norm=0.01 federation.num_rounds=1"
    moved = _moved(tmp_path / "run", f"{quiet} compression={step}")
    assert 0.004 * share < moved <= 0.01 * share * (1 + 1e-6)


def test_no_step_changes_whole_numbers_with_noise(own: None) -> None:
    """Noise, and the bound that it is for, are of what is masked."""
    both = f"{DIGITS} {CLIENT_DP} privacy.noise_multiplier=3 secure_aggregation=secaggplus"
    check_config(compose(both.split()))
    named = (
        r"compression\._target_=own_parts\.Halving: under privacy=client_dp with secure_aggregation.*compression=none"
    )
    with pytest.raises(ConfigError, match=named):
        check_config(compose(f"{both} compression=halving".split()))


def test_an_aggregation_protocol(own: None, tmp_path: Path) -> None:
    """A sum in float64 is the exact one, but for its own rounding."""
    found = run(tmp_path, f"{DIGITS} secure_aggregation=float64", "own")
    plain = run(tmp_path, DIGITS, "plain")
    assert found["status"] == "finished"
    assert found["test_loss"] == pytest.approx(plain["test_loss"], rel=1e-4)


@pytest.mark.slow
def test_all_of_them_in_a_checkout_of_ones_own(tmp_path: Path) -> None:
    root = copy_of_this_checkout(tmp_path / "checkout")
    shutil.copy(ROOT / "tests" / "own_parts.py", root / "fedapp" / "own_parts.py")
    add_to(root / "conf", "fedapp.own_parts")
    finished = run_script(
        *("data=two_blobs", "data.numbers=true", "model=bottleneck", "task.loss=log_cosh", *FEW.split()),
        *("task.metrics=[largest_error]", "compression=halving", "secure_aggregation=float64"),
        cwd=tmp_path,
        root=root,
    )
    assert finished.code == 0, finished.output
    assert finished.summary["test_largest_error"] > 0
