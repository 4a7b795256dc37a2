"""Comparisons of parties with different columns: the same entities in all arms, and arms that are what they say."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fedapp.common.errors import ConfigError
from fedapp.compare.arms_by_columns import arms_by_columns
from fedapp.compare.comparison import Asked, compare, prepare
from fedapp.config import compose
from fedapp.launch.local.engine import LocalEngine
from fedapp.vertical.pooled import PooledTraining
from fedapp.vertical.vertical_options import vertical_options

PARTIES = {"bank": range(0, 60), "shop": range(6, 60), "phone": range(60)}  # which identities each has


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The bank has the labels; what they depend on lies with the shop."""
    folder, random = tmp_path_factory.mktemp("parties"), torch.Generator().manual_seed(0)
    hidden = torch.randn(60, generator=random).tolist()
    for name, there in PARTIES.items():
        own = hidden if name == "shop" else torch.randn(60, generator=random).tolist()
        lines = [
            f"p{i},{own[i]:.4f}" + (f",{'yes' if hidden[i] > 0 else 'no'}" if name == "bank" else "") for i in there
        ]
        (folder / f"{name}.csv").write_text(
            "\n".join([f"id,{name}_x{',late' if name == 'bank' else ''}", *lines]) + "\n"
        )
    files = ",".join(f"{name}:{folder / name}.csv" for name in PARTIES)
    text = f"task=vertical data=party_files data.parties={{{files}}} data.label_party=bank data.label=late data.key=id"
    return f"{text} federation.num_rounds=3 vertical.embedding=4 model.hidden=[4] optimizer.lr=0.2"


@pytest.fixture(scope="module")
def result(overrides: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    place = tmp_path_factory.mktemp("out")
    asked = Asked(tuple(overrides.split()), (("vertical.fusion.masked=false",),), (0, 1), draws=100)
    engine = LocalEngine()
    try:
        yield compare(engine, prepare(asked, place), place)
    finally:
        engine.end()


@pytest.mark.slow
def test_all_arms_are_judged_on_the_same_entities(result: dict[str, Any], overrides: str) -> None:
    (site,) = result["sites"]
    assert (site["name"], site["unit"]) == ("bank", "entity")
    assert site["trained_on"] + site["held_out"] == 54  # those that all parties have
    assert [arm["name"] for arm in result["arms"]] == ["alone", "pooled", "federated", "vertical.fusion.masked=false"]
    for arm in result["arms"]:
        assert arm["held_out_sha256"] == {"bank": [site["examples_sha256"]]}
        assert result["figures"][arm["name"]]["bank"]["value"] is not None
        assert len(arm["runs"]) == 2


@pytest.mark.slow
def test_each_arm_has_the_columns_that_it_says(result: dict[str, Any]) -> None:
    """Only the shop's column tells the label; federated training is that of all columns together."""
    figures = {arm: result["figures"][arm]["bank"]["value"] for arm in ("alone", "pooled", "federated")}
    assert figures["pooled"] == figures["federated"] > 0.8
    assert figures["alone"] < figures["pooled"]
    steps = {arm["name"]: arm["steps"] for arm in result["arms"]}
    assert steps["pooled"] == steps["federated"]
    assert any("entities of its own that other parties lack" in note for note in result["arms"][0]["notes"])
    assert result["arms"][2]["bytes"] > 0


@pytest.mark.slow
def test_outputs_are_those_that_the_metrics_are_of(overrides: str) -> None:
    config = compose(overrides.split())
    options = vertical_options(config)
    training = PooledTraining(config, options, options.names)
    training.train()
    scores = training.outputs(training.test_rows)
    assert training.judge()["accuracy"] == pytest.approx(
        float((scores.argmax(1) == training.test_targets).float().mean())
    )


def test_whoever_has_all_columns_hides_no_labels() -> None:
    base = ["task=vertical", "vertical/label_privacy=noise", "vertical.label_privacy.scale=2.0", "model.hidden=[8]"]
    alone, pooled, federated, other = arms_by_columns(base, [("vertical/label_privacy=label_dp",)])
    assert alone.overrides == pooled.overrides == ("task=vertical", "model.hidden=[8]", "vertical/label_privacy=none")
    assert federated.overrides == tuple(base)
    assert other.overrides == ("task=vertical", "model.hidden=[8]", "vertical/label_privacy=label_dp")
    compose(other.overrides)


@pytest.mark.parametrize(
    ("given", "variant", "said"),
    [
        ("federation.patience=2", "", "federation.patience=2: all arms of a comparison take the same number of steps"),
        ("federation.result=best", "", "federation.result=best"),
        ("vertical.predict=0123456789abcdef", "", "a comparison trains; leave it null"),
        ("run.engine=flower", "", "a comparison runs on the local engine"),
        ("train.val_fraction=0.2", "", "train.val_fraction=0.2: has no effect in task=vertical"),
        ("data.test_fraction=0", "", "no entity is held out|data.test_fraction"),
        ("", "vertical.unmatched=zero", "would be judged on other entities"),
        ("", "data.test_fraction=0.5", "changes data, partition or task"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    overrides: str, given: str, variant: str, said: str, tmp_path: Path
) -> None:
    asked = Asked((*overrides.split(), *given.split()), ((variant,),) if variant else ())
    with pytest.raises(ConfigError if "entity" not in said else Exception, match=said):
        prepare(asked, tmp_path / "new")
    assert not (tmp_path / "new").exists()
