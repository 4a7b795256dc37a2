"""Every option of every group composes, builds, and trains for a round."""

import csv
import json
import random
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from every_task import TEXTS
from hydra.utils import get_object
from in_process import run_in_process
from language_models import ADAPTED, CAUSAL, LETTERS
from photographs import one_in
from PIL import Image
from visits import COLUMNS, write_columns

from fedapp.aggregation.protocol import protocol_of
from fedapp.config import CONF_DIR, compose
from fedapp.privacy.option import privacy_of

NUMBER = (
    "data=synthetic data.shape=[5] data.num_examples=600 data.test_examples=60 data.num_classes=null partition=iid"
    " model=logistic_regression"
)
LANGUAGE = (
    "data=text data.path={said} data.vocabulary_size=500 data.window=6 partition=natural partition.partition_by=user"
    " model.embedding=4 model.hidden=6"
)
PLAYS = "data.vocabulary_size=300 data.extra_words=[] partition=natural partition.partition_by=role data.min_words=6000"
VERSE = (
    "task=text_classification data.window=8 data.tokenizer=null data.vocabulary_size=300 data.min_speeches=60"
    " data.test_clients=2"
)
ADAPTERS, CAUSAL_LM = (text.replace("{", "{{").replace("}", "}}") for text in (ADAPTED, CAUSAL))
FORM = ADAPTERS[ADAPTERS.index("model.pretrained") : ADAPTERS.index(" optimizer.lr")]  # a small random network
SALES = "data=series data.path={sales} data.time=day data.series=shop data.label=sold data.regression=true"
SALES += " partition=iid"
SEVERAL = f"data=csv data.path={{visits}} {COLUMNS} partition=iid model=mlp"  # labels at once
# What an option needs besides its name. "{csv}", "{images}" and "{hub}" are made by the fixture below.
EXTRA = {
    "data/breast_cancer": "model=mlp",
    "data/csv": "data.path={csv} data.label=outcome data.group=hospital data.missing=mean model=mlp",
    "data/parquet": "data.path={csv} data.label=outcome data.group=hospital data.missing=mean model=mlp",
    "data/series": f"{SALES} model=mlp",
    "model/cnn1d": f"{SALES} data.lags=[0,1,6]",
    "data/npz": "data.path={npz} data.size=8",
    "data/image_folder": "data.path={images} data.size=8",
    "data/hub": "data.dataset={hub} data.image=image data.label=label data.classes=[a,b] data.size=8",
    "data/mnist": "data.dataset={hub} data.classes=[a,b]",
    "data/cifar10": "data.dataset={hub} data.image=image data.classes=[a,b]",
    "data/femnist": "data.dataset={hub} data.label=label data.group=null data.classes=[a,b] data.size=8",
    **dict.fromkeys(
        ("strategy/krum", "strategy/median", "strategy/multi_krum", "strategy/trimmed_mean"), "federation.num_clients=5"
    ),
    "data/solar": "data.size=32 model=logistic_regression",
    **dict.fromkeys(
        ("task/kind/regression", "task/loss/huber", "task/loss/quantile", "task/loss/squared_error"), NUMBER
    ),
    **{f"metric/{name}": NUMBER for name in ("mae", "mape", "mase", "median_absolute_error", "mse", "r2", "rmse")},
    **{f"metric/{path.stem}": SEVERAL for path in (CONF_DIR / "metric").glob("label_*.yaml")},
    **dict.fromkeys(
        ("metric/hamming_loss", "metric/subset_accuracy", "task/kind/multilabel", "task/loss/binary_cross_entropy"),
        SEVERAL,
    ),
    "data/synthetic": "data.num_examples=600 data.test_examples=60",
    "task/transfer": "data.size=32",
    "model/efficientnet_lite0": "data=solar data.size=32",
    "experiment/solar_dp": "data.size=32",
    "experiment/solar_random": "data.size=32",
    "experiment/solar_scratch": "data.size=32",
    "experiment/bench_cnn": "data.num_examples=600 data.test_examples=60",
    "model/torchvision": "model.name=resnet18 model.norm=group",
    "data/flights": "task=vertical data.sample=60 vertical.unmatched=zero",
    "data/party_files": "task=vertical data.parties={parties} data.label_party=bank data.label=late data.key=id",
    "partition/columns": "task=vertical",
    "data/flight_rows": "data.sample=60 model=mlp",
    "experiment/airlines": "data.sample=60",
    "data/heart_disease": "model=mlp",
    "data/watch": "model=cnn1d",
    "data/stock_prices": "model=mlp partition=iid",
    "data/text": LANGUAGE.replace("data=text", "model=lstm"),
    "data/labelled_text": ADAPTERS,
    "data/hub_labelled_text": (
        "task=text_classification data.dataset={letters} data.classes=[asks,tells] data.window=10 data.test_split=null"
        f" data.tokenizer=null data.vocabulary_size=500 partition.partition_by=user {FORM}"
    ),
    **dict.fromkeys(("data/verse", "task/text_classification"), f"{VERSE} {FORM}"),
    "experiment/verse": f"{VERSE} {FORM}".replace("min_speeches=60", "min_speeches=160"),  # of plays
    "model/text_encoder": ADAPTERS,
    "model/causal_lm": CAUSAL_LM,
    "data/hub_text": (
        "data.dataset={hub_text} data.user=who data.test_clients=1 data.vocabulary_size=500 partition=natural"
        " partition.partition_by=user model=lstm model.embedding=4 model.hidden=6"
    ),
    "data/shakespeare": f"{PLAYS} data.test_clients=2 model=lstm model.embedding=4 model.hidden=6",
    "model/lstm": LANGUAGE,
    "model/transformer_lm": LANGUAGE.partition(" model.embedding")[0],
    **dict.fromkeys(
        ("task/kind/next_token", "task/loss/token_cross_entropy", "metric/token_accuracy", "metric/token_top_3"),
        f"{LANGUAGE} model=lstm",
    ),
    "metric/perplexity": f"{LANGUAGE} model=lstm",
    **{
        f"experiment/{name}": "data.vocabulary_size=300 model.embedding=4 model.hidden=6"
        for name in ("keyboard", "keyboard_full", "keyboard_dp")
    },
    "experiment/shakespeare_chars": "model.embedding=4 model.hidden=6 model.layers=1",
    **{f"data/synthetic_{name}": "data.num_examples=800 model=mlp" for name in ("machines", "payments")},
    **{f"experiment/{name}": "data.num_examples=800" for name in ("factories", "banks")},
    **{f"federation/personal/{name}": "federation.final_evaluation=true" for name in ("finetune", "ditto")},
    **dict.fromkeys(("vertical/fusion/sum", "vertical/fusion/concat"), "task=vertical"),
    **{f"vertical/label_privacy/{name}": "task=vertical" for name in ("none", "noise", "label_dp")},
    "experiment/flights_vertical": "data.sample=60",
    "experiment/flights_client_dp": "data.sample=60",
    "data/flights_by_plane": "data.sample=60 model=mlp",
    "rounds/buffered": "rounds.buffer_size=2",
    "federation/client_speed/from_file": "federation.client_speed.path={speeds}",
    "tracker/mlflow": "tracker.uri={mlruns} tracker.artifacts=false",
    "tracker/wandb": "tracker.artifacts=false",
    "partition/natural": "data=csv data.path={csv} data.label=outcome data.group=hospital data.missing=mean model=mlp",
}
CHOSEN_BY = {"lr_schedule": "lr_schedule@client_lr={}", "metric": "task.metrics=[{}]"}  # other groups: by their name
SMALL = "federation.num_rounds=1 federation.num_clients=3 federation.final_evaluation=false"
OPTIONS = sorted(str(p.relative_to(CONF_DIR).with_suffix("")) for p in CONF_DIR.glob("*/**/*.yaml"))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A table of three hospitals, a folder of images, and the same as a local Hugging Face data set."""
    root = tmp_path_factory.mktemp("data")
    source = random.Random(0)
    with (root / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "sex", "hospital", "outcome"])
        for i in range(150):
            age = source.uniform(20, 90)
            shown = "" if i % 29 == 7 else f"{age:.1f}"
            writer.writerow([shown, source.choice("fm"), f"h{i % 3}", "ill" if age > 50 else "well"])
    pixels = np.random.default_rng(0)
    for split in ("images", "hub/train", "hub/test"):
        for label in ("a", "b"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(40):
                image = pixels.integers(0, 128, (8, 8), dtype=np.uint8) + (0 if label == "a" else 120)
                Image.fromarray(image.astype(np.uint8)).save(folder / f"{i}.png")
    arrays = {f"{s}_images": pixels.integers(0, 255, (60, 8, 8), dtype=np.uint8) for s in ("train", "val", "test")}
    arrays |= {f"{s}_labels": np.arange(60)[:, None] % 2 for s in ("train", "val", "test")}
    np.savez(root / "images.npz", **arrays)
    rows = "".join(f"2024-01-{1 + i % 28:02d},s{i // 28},{i % 7 * 2},1\n" for i in range(84))
    (root / "sales.csv").write_text("day,shop,sold,open\n" + rows)
    (root / "speeds.csv").write_text("client,seconds\n" + "".join(f"{i},{1 + i}\n" for i in range(20)))
    for party in ("bank", "shop", "phone"):
        lines = [f"{i},{source.random():.3f},{'ny'[i % 2]}" for i in range(60)]
        (root / f"{party}.csv").write_text("\n".join(["id,spent,late", *lines]) + "\n")
    import pyarrow as pa
    from pyarrow import parquet

    said = {"who": [f"user {i % 6}" for i in range(60)], "text": ["the river was wide\nand new"] * 60}
    (root / "letters").mkdir()
    letters = [json.loads(line) for line in LETTERS.read_text().splitlines()]
    parquet.write_table(pa.Table.from_pylist(letters), root / "letters" / "train-00000-of-00001.parquet")
    (root / "hub_text").mkdir()
    parquet.write_table(pa.table(said), root / "hub_text" / "train-00000-of-00001.parquet")
    return {
        "hub_text": str(root / "hub_text"),
        "letters": str(root / "letters"),
        "parties": "{" + ",".join(f"{name}:{root / name}.csv" for name in ("bank", "shop", "phone")) + "}",
        "speeds": str(root / "speeds.csv"),
        "sales": str(root / "sales.csv"),
        "npz": str(root / "images.npz"),
        "csv": str(root / "table.csv"),
        "images": str(root / "images"),
        "hub": str(root / "hub"),
        "visits": write_columns(root / "visits.csv"),
        "said": str(TEXTS),
        "mlruns": (root / "mlruns").as_uri(),
    }


@pytest.fixture(scope="module", autouse=True)
def photographs() -> Iterator[None]:
    with one_in(8):
        yield


def overrides_for(option: str, places: dict[str, str]) -> str:
    group, _, name = option.rpartition("/")
    choice = CHOSEN_BY.get(group, f"{group}={{}}").format(name)
    small = SMALL.replace("num_clients=3", "num_clients=1") if option == "experiment/pooled" else SMALL
    extra = EXTRA.get(option, "").format(**places)
    if "vertical" in f"{option} {extra}":  # its parties are all there is
        small = "federation.num_rounds=1"
    return f"{choice} {small} {extra}"


@pytest.mark.parametrize("option", OPTIONS)
def test_option_composes_and_its_target_exists(option: str, places: dict[str, str]) -> None:
    config = compose(shlex.split(overrides_for(option, places)))
    node: Any = config
    for part in option.rpartition("/")[0].replace("lr_schedule", "client_lr").split("/"):
        node = getattr(node, part, None)
    if isinstance(node, dict):
        assert callable(get_object(node["_target_"]))
    else:
        assert config.federation.num_rounds == 1


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_option_trains_for_a_round(option: str, places: dict[str, str], tmp_path: Path) -> None:
    directory = run_in_process(tmp_path / "run", overrides_for(option, places))
    summary = json.loads((directory / "summary.json").read_text())
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert summary["status"] == "finished"
    privacy = privacy_of(compose(shlex.split(overrides_for(option, places))))
    if not privacy.discloses_cohort:
        assert not lines[-1].keys() & {"replied", "cohort", "train_loss"}
        assert (directory / "clients.jsonl").read_text() == ""
        return
    assert lines[-1]["replied"] == lines[-1]["cohort"] > 0
    private = not privacy.discloses_metrics
    assert (lines[-1]["train_loss"] is None) if private else (lines[-1]["train_loss"] > 0)
    clients = [json.loads(line) for line in (directory / "clients.jsonl").read_text().splitlines()]
    clients = [row for row in clients if row.get("phase") != "final"]
    told = protocol_of(compose(shlex.split(overrides_for(option, places)))).individual_updates  # else of none alone
    assert all(row["steps"] > 0 if told else not row["steps"] for row in clients)


@pytest.mark.parametrize("option", OPTIONS)
def test_option_opens_with_the_commands_that_use_it(option: str) -> None:
    head = (CONF_DIR / f"{option}.yaml").read_text().splitlines()[:3]
    assert any("flwr run . --stream" in line for line in head)
    assert any("python scripts/run.py" in line for line in head)
    group, _, name = option.rpartition("/")
    choice = CHOSEN_BY.get(group, "={}").format(name)
    assert all(choice in line for line in head if "run" in line and line.startswith("# "))
