"""Whole runs under DP-SGD: budgets end them, ledgers outlive them, and nothing that is not covered is on the wire."""

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from every_task import EVERY_TASK
from flwr.app import Message
from in_process import InProcessGrid, run_in_process, run_on
from rich.console import Console
from table_form import FORM

from fedapp.client.handlers import open_run
from fedapp.client_app import app
from fedapp.common.errors import ConfigError, FederationError
from fedapp.config import compose
from fedapp.launch.show import show_summary
from fedapp.learning.build import build_parts
from fedapp.privacy.accounting import Spending, epsilon
from fedapp.privacy.ledger import FileLedger
from fedapp.privacy.option import privacy_of
from fedapp.wire.instruction import Instruction
from fedapp.wire.reply import ClientReport

pytestmark = pytest.mark.slow

DP = "privacy=dp_sgd model=logistic_regression federation.num_clients=4 privacy.accountant=rdp partition=iid"
QUICK = f"{DP} privacy.sample_rate=0.5 privacy.noise_multiplier=2.0"


def summary(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "summary.json").read_text()))


def rows(directory: Path, name: str = "clients.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / name).read_text().splitlines()]


def go(directory: Path, overrides: str, **options: Any) -> Path:
    return run_in_process(directory, f"{overrides} run.output_dir={directory}", **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return go(tmp_path_factory.mktemp("private") / "run", f"{QUICK} federation.num_rounds=4", report=True)


def other_task(overrides: str, task: str) -> str:
    """Of a network with BatchNorm only what lies behind it can be trained privately."""
    own = EVERY_TASK[task]
    changed = overrides.replace(" partition=iid", "") if "partition=" in own else overrides
    changed = changed.replace(EVERY_TASK["horizontal"], own)
    return f"{changed} model.last_k=1" if task == "last_k" else changed


@pytest.mark.parametrize("task", EVERY_TASK)
def test_epsilon_of_every_client_is_that_of_all_its_rounds(run: Path, tmp_path: Path, task: str) -> None:
    if task != "horizontal":
        run = go(tmp_path / "run", f"{other_task(QUICK, task)} federation.num_rounds=2")
    taken: dict[int, int] = {}
    for row in rows(run):
        if row["rejected"] is None:
            taken[row["client"]] = taken.get(row["client"], 0) + 1
            expected = epsilon([Spending(2.0, 0.5, 2 * taken[row["client"]])], 1e-5, "rdp")
            assert row["epsilon"] == pytest.approx(expected)
            assert row["seconds"] is None  # withheld
            assert (row["noise_multiplier"], row["sample_rate"], row["delta"], row["steps"]) == (2.0, 0.5, 1e-5, 2)
    found = summary(run)
    spent = sorted(epsilon([Spending(2.0, 0.5, 2 * count)], 1e-5, "rdp") for count in taken.values())
    assert found["epsilon_max"] == pytest.approx(spent[-1])
    assert found["epsilon_median"] == pytest.approx(spent[len(spent) // 2])
    assert found["privacy"]["unit"] == "one example of one client's data"
    assert rows(run, "metrics.jsonl")[-1]["epsilon_max"] == pytest.approx(spent[-1])
    for client, count in taken.items():
        entries = FileLedger(run / "ledgers" / f"client-{client}.jsonl").entries()
        assert sum(entry.spent.steps for entry in entries) == 2 * count


def test_the_report_tells_of_privacy(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert "highest ε" in page
    assert "ε spent" in page
    mode = summary(run)["privacy"]["grad_sample_mode"]
    facts = {"what is protected": "one example of one client&#39;s data", "accountant": "rdp", "steps a round": "2"}
    facts |= {"sample rate q": "0.5", "largest δ": "1e-05", "per-example gradients by": mode}
    facts |= {"noise multiplier \N{GREEK SMALL LETTER SIGMA}": "2"}
    for name, value in facts.items():
        assert f'<th scope="row">{name}</th><td>{value}</td>' in page


def test_tensorboard_tells_of_privacy(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert events.Scalars("privacy/epsilon_max")[-1].value == pytest.approx(summary(run)["epsilon_max"], rel=1e-6)
    assert events.Scalars("privacy/epsilon_median")
    text = events.Tensors("privacy/text_summary")[0].tensor_proto.string_val[0].decode()
    for fact in ("noise_multiplier: 2.0", "sample_rate: 0.5", "steps_per_round: 2", "delta: 1e-05", "accountant: rdp"):
        assert fact in text
    assert "unit: one example of one client's data" in text


def test_the_terminal_tells_of_privacy(run: Path, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=120)
    found = {**summary(run), "declined": 3}
    show_summary(console, found, run)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"{found['epsilon_max']:.4f} at most" in text
    assert "delta 1e-05, accountant rdp, noise_multiplier 2, sample_rate 0.5, steps_per_round 2" in text
    assert "3 clients, whose privacy budget is spent" in text


def test_a_delta_that_is_too_large_is_named(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match=r"privacy.delta: must be below 1 / number of examples"):
        go(tmp_path / "run", f"{QUICK} federation.num_rounds=1 privacy.delta=0.1")


def test_augmentation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train.augmentation=\[shift\]: not under privacy=dp_sgd"):
        go(tmp_path / "run", f"{QUICK} train.augmentation=[shift]")


def test_a_small_budget_ends_the_run(tmp_path: Path) -> None:
    limit = epsilon([Spending(2.0, 0.5, 2 * 3)], 1e-5, "rdp") + 1e-6
    overrides = f"{QUICK} federation.num_rounds=30 federation.fraction_train=1 privacy.target_epsilon={limit}"
    found = summary(go(tmp_path / "run", overrides))
    assert found["status"] == "finished"
    assert "privacy budget" in found["stop_reason"]
    assert (found["rounds"], found["declined"], found["rejected"]) == (4, 4, 0)
    assert found["epsilon_max"] <= limit
    last = [row for row in rows(tmp_path / "run") if row["round"] == 4]
    assert all(row["unused"].startswith("declined") and "epsilon" not in row for row in last)


@pytest.mark.parametrize("task", ["horizontal", "head", "personal heads"])
def test_a_resumed_run_goes_on_with_what_was_spent(tmp_path: Path, task: str) -> None:
    limit = epsilon([Spending(2.0, 0.5, 2 * 5)], 1e-5, "rdp") + 1e-6
    base = f"{other_task(QUICK, task)} federation.fraction_train=1 privacy.target_epsilon={limit} run.resume=auto"
    go(tmp_path / "run", f"{base} federation.num_rounds=2")
    found = summary(go(tmp_path / "run", f"{base} federation.num_rounds=30"))
    assert found["rounds"] == 6
    assert "privacy budget" in found["stop_reason"]


def test_without_a_run_directory_ledgers_last_as_long_as_the_run(tmp_path: Path) -> None:
    grid = InProcessGrid(f"{QUICK} federation.num_rounds=2", 2)
    run_on(grid, tmp_path / "run", f"{QUICK} federation.num_rounds=2")
    assert any(name.startswith("ledger-") for context in grid.contexts.values() for name in context.state)
    assert not (tmp_path / "run" / "ledgers").exists()


def devices(tmp_path: Path, **third: Any) -> list[dict[str, Any]]:
    configs = []
    for number in range(3):
        table = tmp_path / f"{number}.csv"
        lines = [f"{i % 7},{(i * number) % 5},{'yn'[i % 7 > 3]}" for i in range(41 + number)]
        table.write_text("a,b,ill\n" + "\n".join(lines) + "\n")
        ledger = str(tmp_path / f"ledger-{number}")
        configs.append({"data-path": str(table), "partition-id": number, "ledger-path": ledger})
    configs[2] |= third
    return [{key: value for key, value in config.items() if value is not None} for config in configs]


TABLES = (
    "privacy=dp_sgd privacy.accountant=rdp privacy.sample_rate=0.5 privacy.noise_multiplier=2.0 data=csv data.label=ill"
    f" {FORM}"
    " data.numeric=[a,b] data.categorical={} data.classes=[y,n] data.scaling=none model=logistic_regression"
    " federation.fraction_train=1"
)
OWN_FAULT = "its node-config does not go with this run (see the client's log)"  # what the server is told of one


@pytest.mark.parametrize("left_out", FORM.split())
def test_no_row_of_a_device_decides_how_the_others_are_read(left_out: str, tmp_path: Path) -> None:
    """What is not given would follow from the rows, and one more row could change every example."""
    overrides, key = TABLES.replace(left_out, ""), left_out.partition("=")[0]
    with pytest.raises(FederationError, match=rf"{key}: under privacy=dp_sgd how a device's rows .* {key}="):
        run_in_process(tmp_path / "run", overrides, node_configs=devices(tmp_path))


def test_an_operators_limit_cannot_be_lifted(tmp_path: Path) -> None:
    limit = epsilon([Spending(2.0, 0.5, 2)], 1e-5, "rdp") + 1e-6
    overrides = f"{TABLES} federation.num_rounds=3 privacy.target_epsilon=1000"
    configs = devices(tmp_path, **{"max-epsilon": limit})
    directory = run_in_process(tmp_path / "run", overrides, node_configs=configs)
    taken = {c: [r["round"] for r in rows(directory) if r["client"] == c and "epsilon" in r] for c in range(3)}
    assert taken == {0: [1, 2, 3], 1: [1, 2, 3], 2: [1]}
    assert summary(directory)["declined"] == 1


def test_a_second_run_finds_what_the_first_one_spent(tmp_path: Path) -> None:
    limit = epsilon([Spending(2.0, 0.5, 6)], 1e-5, "rdp") + 1e-6
    overrides = f"{TABLES} federation.num_rounds=2 privacy.target_epsilon={limit}"
    run_in_process(tmp_path / "first", overrides, node_configs=devices(tmp_path))
    second = summary(run_in_process(tmp_path / "second", overrides, node_configs=devices(tmp_path)))
    assert (second["rounds"], second["declined"]) == (2, 3)


@pytest.mark.parametrize("kind", ["damaged", "a folder", "below a file", "in a folder that is gone", "lost, but known"])
def test_a_ledger_that_fails_stops_its_client_before_round_1(tmp_path: Path, kind: str) -> None:
    """Its operator is told why; the server is not."""
    configs = devices(tmp_path)
    path = Path(configs[1]["ledger-path"])
    if kind == "damaged":
        path.write_text("rubbish\n")
    elif kind == "a folder":
        path.mkdir()
    elif kind == "in a folder that is gone":
        configs[1]["ledger-path"] = str(tmp_path / "disk" / "ledger")
    elif kind == "lost, but known":
        configs[1]["keep-path"] = str(tmp_path / "keep")
        run_in_process(tmp_path / "before", f"{TABLES} federation.num_rounds=1", node_configs=configs)
        for file in tmp_path.glob("ledger-1*"):
            file.unlink()
    else:
        path.write_text("")
        configs[1]["ledger-path"] = str(path / "ledger")
    directory = run_in_process(tmp_path / "run", f"{TABLES} federation.num_rounds=1", node_configs=configs)
    assert {row["client"]: row["rejected"] for row in rows(directory)} == {0: None, 2: None}
    fault = "ledger-path: the ledger cannot be read or written (see the client's log)"
    assert summary(directory)["faults"] == {"SuperNode 101": fault}
    assert kind != "damaged" or path.read_text() == "rubbish\n"
    assert not (tmp_path / "disk").exists()


def test_a_ledger_that_is_damaged_in_mid_run_stops_its_client_only(tmp_path: Path) -> None:
    configs = devices(tmp_path)
    path = Path(configs[1]["ledger-path"])

    def damage(reply: Message) -> Message:
        if reply.metadata.message_type == "query" and reply.metadata.src_node_id == 101:
            path.write_text("rubbish\n")
        return reply

    overrides = f"{TABLES} federation.num_rounds=1"
    directory = run_in_process(tmp_path / "run", overrides, node_configs=configs, tamper=damage)
    reasons = {row["client"]: row["rejected"] for row in rows(directory)}
    assert reasons == {0: None, 1: "failed (see the client's log)", 2: None}
    assert path.read_text() == "rubbish\n"


def test_a_device_without_a_ledger_takes_no_part(tmp_path: Path) -> None:
    configs = devices(tmp_path, **{"ledger-path": None})
    directory = run_in_process(tmp_path / "run", f"{TABLES} federation.num_rounds=1", node_configs=configs)
    assert "ledger-path" in summary(directory)["faults"]["SuperNode 102"]


def test_nothing_uncovered_is_on_the_wire(tmp_path: Path) -> None:
    """Every record of every reply, in the preflight, in training, and to a server that asks for an evaluation."""
    seen: list[Message] = []
    overrides = f"{TABLES} federation.num_rounds=2"
    grid = InProcessGrid(
        overrides,
        node_configs=devices(tmp_path),
        tamper=lambda reply: seen.append(reply) or reply,  # type: ignore[func-returns-value]
    )
    run_on(grid, tmp_path / "run", overrides)
    train = next(message for message in grid.sent if message.metadata.message_type == "train")
    asked = Message(train.content, 100, "evaluate")
    seen.append(app(asked, grid.contexts[100]))
    counts = {45 + number for number in range(-5, 5)} | {41, 42, 43}
    for reply in seen:
        config, metrics = reply.content["config"], reply.content["metrics"]
        if reply.metadata.message_type == "query":
            assert set(reply.content) == {"config", "metrics"}  # no moments
            assert set(metrics) == {"num-examples"}
            assert metrics["num-examples"] == [50]  # of 41, 42 and 43
            continue
        expected = {"num-examples": 0.0, "seconds": 0.0, "val-examples": 0.0}
        assert {name: metrics[name][0] for name in expected} == expected
        assert all(math.isnan(metrics[name][0]) for name in ("train-loss", "val-loss"))
        covered = {"noise-multiplier", "sample-rate", "epsilon", "delta", "steps"}
        assert set(metrics) <= covered | expected.keys() | {"train-loss", "val-loss"}
        assert not counts & {value for column in metrics.values() for value in column}  # type: ignore[union-attr]
        assert set(config) == {"clients", "rejected", "declined", "delivered"}
        assert config["delivered"] == [False]


def test_what_is_wrong_with_private_data_is_not_told(tmp_path: Path) -> None:
    configs = devices(tmp_path)
    Path(configs[1]["data-path"]).write_text("a,b,ill\n1,secret,y\n" * 1)
    directory = run_in_process(tmp_path / "run", f"{TABLES} federation.num_rounds=1", node_configs=configs)
    assert summary(directory)["faults"] == {"client 1": "its data does not fit (see the client's log)"}


def test_buffers_do_not_move(tmp_path: Path) -> None:
    directory = go(tmp_path / "run", f"{QUICK} model=cnn federation.num_rounds=1")
    assert summary(directory)["status"] == "finished"


def test_an_operator_who_asks_for_privacy_gets_no_other_run(tmp_path: Path) -> None:
    plain = " ".join(word for word in TABLES.split() if not word.startswith("privacy"))
    configs = devices(tmp_path, **{"max-epsilon": 3.0})
    del configs[0]["ledger-path"], configs[1]["ledger-path"]
    directory = run_in_process(tmp_path / "run", f"{plain} federation.num_rounds=1", node_configs=configs)
    assert "max-epsilon" in summary(directory)["faults"]["SuperNode 102"]


def test_limits_are_for_devices(tmp_path: Path) -> None:
    node_configs = [
        {"partition-id": 0, "num-partitions": 2, "max-epsilon": 3.0},
        {"partition-id": 1, "num-partitions": 2},
    ]
    directory = go(tmp_path / "run", f"{QUICK} federation.num_rounds=1", node_configs=node_configs)
    assert "max-epsilon: for a device with data of its own" in summary(directory)["faults"]["SuperNode 100"]


@pytest.mark.parametrize("path", ["ledger.jsonl", True, 5])
def test_a_ledger_must_have_an_absolute_path(tmp_path: Path, caplog: pytest.LogCaptureFixture, path: object) -> None:
    configs = devices(tmp_path, **{"ledger-path": path})
    directory = run_in_process(tmp_path / "run", f"{TABLES} federation.num_rounds=1", node_configs=configs)
    assert summary(directory)["faults"] == {"SuperNode 102": OWN_FAULT}
    assert f"ledger-path={path}: must be an absolute path" in caplog.text


def test_without_a_limit_of_its_own_a_device_spends_8_at_most(tmp_path: Path) -> None:
    overrides = f"{TABLES} federation.num_rounds=9 privacy.target_epsilon=null".replace("=2.0", "=1.0")
    directory = run_in_process(tmp_path / "run", overrides, node_configs=devices(tmp_path))
    spent = [row["epsilon"] for row in rows(directory) if row.get("epsilon")]
    assert 4 < max(spent) <= 8
    assert "privacy budget" in summary(directory)["stop_reason"]


def test_a_device_answers_no_second_question_about_its_data(tmp_path: Path) -> None:
    """Whether data fits, and how many examples are left, tell of single rows if the server may ask again otherwise."""
    configs = devices(tmp_path)
    overrides = f"{TABLES} federation.num_rounds=1"
    run_in_process(tmp_path / "run", overrides, node_configs=configs)
    other = f"{overrides} data.missing=drop data.missing_values=[none]"
    with pytest.raises(FederationError, match="not those by which this device's data was first read"):
        run_in_process(tmp_path / "other", other, node_configs=configs)
    allowed = Path(f"{configs[0]['ledger-path']}.data")
    assert allowed.stat().st_mode & 0o777 == 0o600
    settings = {**json.loads(allowed.read_text()), "missing": "drop", "missing_values": ["none"]}
    for config in configs:
        with Path(f"{config['ledger-path']}.data").open("a") as file:
            file.write(json.dumps(settings, sort_keys=True) + "\n")
    assert summary(run_in_process(tmp_path / "third", other, node_configs=configs))["status"] == "finished"


def test_the_unit_of_counts_is_the_devices(tmp_path: Path) -> None:
    """With units of its choice, a server would find the exact count."""
    configs = devices(tmp_path, **{"round-counts-to": 25})
    for unit in (1, 7):
        grid = InProcessGrid(f"{TABLES} federation.num_rounds=1 privacy.round_counts_to={unit}", node_configs=configs)
        run_on(grid, tmp_path / str(unit), f"{TABLES} federation.num_rounds=1 privacy.round_counts_to={unit}")
        told = [m.content["metrics"]["num-examples"] for m in grid.received if m.metadata.message_type == "query"]
        assert sorted(told, key=str) == [[50], [50], [50]]  # of 41, 42 to tens, of 43 to 25


@pytest.mark.parametrize("limit", ["nan", "much", 0, -1.0, "inf"])
def test_a_limit_that_is_none_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture, limit: object) -> None:
    configs = devices(tmp_path, **{"max-epsilon": limit})
    directory = run_in_process(tmp_path / "run", f"{TABLES} federation.num_rounds=1", node_configs=configs)
    assert summary(directory)["faults"] == {"SuperNode 102": OWN_FAULT}
    assert f"max-epsilon={limit}: must be a number greater than 0" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ("model=torchvision model.name=resnet18 model.norm=batch", ["BatchNorm2d", "model.norm=group"]),
        ("data=breast_cancer model=mlp", ["data.scaling=federated", "public"]),
        ("train.val_fraction=0.1", ["train.val_fraction=0.1", "set it to 0"]),
        ("federation.final_evaluation=true", ["federation.final_evaluation"]),
        ("privacy.target_epsilon=null", ["privacy.noise_multiplier=null", "one of them"]),
        ("privacy.sample_rate=null", ["privacy.sample_rate=null", "expected float"]),
        ("train.max_seconds=5", ["train.max_seconds"]),
        ("privacy.target_epsilon=1e-9", ["privacy.target_epsilon=1e-09", "no noise"]),
    ],
)
def test_what_cannot_be_protected_is_refused(overrides: str, parts: list[str]) -> None:
    config = compose(["privacy=dp_sgd", *overrides.split()])
    with pytest.raises(ConfigError) as caught:
        privacy_of(config).conflicts(config, build_parts(config))
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_a_server_cannot_choose_predictable_noise_on_a_device(tmp_path: Path) -> None:
    for setting in ("privacy.noise_source=seeded_for_tests", "privacy.noise_multiplier=0 privacy.target_epsilon=null"):
        overrides = f"{TABLES} federation.num_rounds=1 {setting}"
        with pytest.raises(FederationError, match=r"not on a device, whose data is real"):
            run_in_process(tmp_path / "run", overrides, node_configs=devices(tmp_path))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("privacy.max_grad_norm=7e-46", r"privacy.max_grad_norm=7e-46: must be at least 0.01"),
        ("privacy.noise_multiplier=1e300", r"privacy.noise_multiplier=1e\+300: must be at most 10000"),
    ],
)
def test_numbers_that_vanish_in_float32_are_refused(override: str, words: str) -> None:
    config = compose(["privacy=dp_sgd", override])
    with pytest.raises(ConfigError, match=words):
        privacy_of(config)


@pytest.mark.parametrize("key", ["target_epsilon", "noise_multiplier", "delta"])
def test_a_setting_of_an_option_that_is_not_chosen_is_refused(key: str) -> None:
    words = rf"privacy\.{key}: the option that is chosen has no such key; privacy=client_dp or privacy=dp_sgd has it"
    with pytest.raises(ConfigError, match=words):
        compose([f"privacy.{key}=3"])


def test_seeded_noise_is_no_privacy(tmp_path: Path) -> None:
    directory = go(tmp_path / "run", f"{QUICK} federation.num_rounds=1 privacy.noise_source=seeded_for_tests")
    assert summary(directory)["epsilon_max"] is None
    assert summary(directory)["privacy"]["noise_source"] == "seeded_for_tests"


def test_two_runs_of_one_seed_are_two_models(tmp_path: Path) -> None:
    models = {summary(go(tmp_path / name, f"{QUICK} federation.num_rounds=1"))["model_sha256"] for name in "ab"}
    assert len(models) == 2


def test_a_client_without_an_account_does_not_train() -> None:
    grid = InProcessGrid(QUICK, 1)
    site = open_run(grid.contexts[100]).site
    state = {key: value.clone() for key, value in site.model.state_dict().items()}
    report, update = site.train(0, Instruction(1, (0,), (1.0,)), state)
    assert not update
    assert report == ClientReport(0, rejected="failed (see the client's log)")
    assert all(torch.equal(value, state[key]) for key, value in site.model.state_dict().items())
