"""Whole runs of client-level DP with a trusted server: nothing uncovered leaves them, and every round is paid for."""

import errno
import json
import re
import shutil
from collections.abc import Callable, Iterable
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from every_task import BODY, EVERY_TASK
from flwr.app import Message
from in_process import InProcessGrid, make_context, run_in_process, run_on
from safetensors.torch import load_file

from fedapp.common.errors import ConfigError, DataError, FederationError
from fedapp.common.files import write_atomically
from fedapp.config import compose
from fedapp.data.shards import ClientData, Shards
from fedapp.launch.check import check
from fedapp.privacy.accounting import Spending, epsilon
from fedapp.privacy.ledger import FileLedger
from fedapp.privacy.option import privacy_of
from fedapp.privacy.server_budget import ServerBudget
from fedapp.server.build import cohort_rule
from fedapp.server.check_config import check_config
from fedapp.server.population.cohort import CohortRule
from fedapp.server.strategy import WeightedFedAvg
from fedapp.wire.instruction import unpack_instruction
from fedapp.wire.preflight import unpack_preflight

pytestmark = pytest.mark.slow

DP = (
    "privacy=client_dp model=logistic_regression partition=size_skewed federation.num_clients=30"
    " federation.num_rounds=3 privacy.accountant=rdp privacy.noise_multiplier=2.0 privacy.target_epsilon=null"
)


def go(directory: Path, overrides: str = "", *, option: str = "client_dp", **options: Any) -> Path:
    given = DP.replace("client_dp", option)
    return run_in_process(directory, f"{given} {overrides} run.output_dir={directory}", **options)


def summary(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "summary.json").read_text()))


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def ledger(directory: Path) -> FileLedger:
    return FileLedger(directory / "ledgers" / "server.jsonl")


DEVICES = "federation.num_clients=4 federation.num_rounds=1"


@pytest.fixture(scope="module")
def grid() -> InProcessGrid:
    return InProcessGrid(DP)


@pytest.fixture(scope="module")
def run(grid: InProcessGrid, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("client_dp") / "run"
    return run_on(grid, directory, f"{DP} run.output_dir={directory}", report=True)


def test_every_round_is_in_the_server_s_ledger_and_in_epsilon(run: Path) -> None:
    entries = ledger(run).entries()
    assert [entry.server_round for entry in entries] == [1, 2, 3]
    assert {entry.spent for entry in entries} == {Spending(2.0, 0.5, 1)}
    for line in lines(run)[1:]:
        delta = min(1e-5, 30**-1.1)
        assert line["epsilon_max"] == pytest.approx(epsilon([Spending(2.0, 0.5, line["round"])], delta, "rdp"))
        assert line["epsilon_unamplified"] == pytest.approx(epsilon([Spending(2.0, 1.0, line["round"])], delta, "rdp"))
    found = summary(run)
    assert found["epsilon_max"] == lines(run)[-1]["epsilon_max"] < found["privacy"]["epsilon_unamplified"]
    both = {"delta_by_population": 30**-1.1, "delta_largest": 1e-5, "delta": 1e-5, "population": 30}
    assert both.items() <= found["privacy"].items()
    assert "replacing it counts twice: 2 epsilon, (1 + e^epsilon) delta" in found["privacy"]["unit"]


def test_no_file_of_the_run_tells_who_took_part_or_how_many(run: Path, grid: InProcessGrid) -> None:
    """Nor the checkpoint, nor the report; not even by bytes or seconds."""
    assert (run / "clients.jsonl").read_text() == ""
    allowed = {"round", "time", "test_loss", "test_accuracy", "epsilon_max", "epsilon_unamplified", "warnings"}
    assert all(line.keys() <= allowed for line in lines(run))
    assert all("time" not in line for line in lines(run)[1:])
    hidden = ("clients", "faults", "rejected", "unused", "excluded", "bytes_up", "bytes_down", "supernodes")
    assert all(summary(run)[name] is None for name in hidden)
    for path in sorted(run.rglob("*")):
        if path.is_file():
            assert not re.search(rb"client[ -]\d|\"clients\": ?\[", path.read_bytes()), path
    sizes = [len(unpack_instruction(m.content)[0].clients) for m in grid.sent if m.metadata.message_type == "train"]
    assert sum(sizes) > 0
    (checkpoint, *_) = sorted((run / "checkpoint").glob("*.safetensors"), reverse=True)
    header = checkpoint.read_bytes()[: 1 << 16]
    assert re.search(rb'failures[\\"]+: {}', header)


def test_no_client_tells_its_count_its_faults_or_its_metrics(grid: InProcessGrid, run: Path) -> None:
    for message in grid.received:
        if message.metadata.message_type == "query":
            report = unpack_preflight(message.content)
            assert set(report.num_examples) == {1}
            assert not report.moments
            assert not report.data
            assert not any(report.faults)
        else:
            columns = message.content.metric_records["metrics"]
            assert {float(v) for name in ("num-examples", "steps", "seconds") for v in columns[name]} <= {0.0}
            assert {"epsilon"}.isdisjoint(columns)


def test_the_report_tells_of_privacy(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert "ε for who sees whom the server asks" in page
    assert "their cohorts are secret" in page
    assert "δ by the number of clients, N^-1.1" in page
    assert ">0 clients" not in page


def test_no_line_of_the_log_tells_who_or_how_many_there_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even which client's data is at fault, nor how many there are, which under adding or removing is secret."""
    of = Shards.of

    def broken(self: Shards, client: int) -> ClientData:
        if client == 7:
            raise DataError("no examples")
        return of(self, client)

    monkeypatch.setattr(Shards, "of", broken)
    caplog.set_level("INFO")
    go(tmp_path / "run", "privacy.population=64 federation.num_rounds=1")
    assert "some 32 of 64 clients (privacy.population) a round" in caplog.text
    assert "a client will contribute nothing: no examples" in caplog.text
    assert not re.search(r"client 7|\b(29|30)\b.clients|joined", caplog.text)


# --- who pays, and where ------------------------------------------------------------------------------------------


def strategy(budget: ServerBudget | None) -> WeightedFedAvg:
    config = compose(DP.split())
    unused: Any = None
    return WeightedFedAvg(unused, cohort_rule(config), unused, unused, unused, unused, budget=budget)


def test_no_secret_round_goes_unpaid(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no budget"):
        strategy(None)
    config = compose(DP.split())
    budget = privacy_of(config).server_budget(config, FileLedger(tmp_path / "ledger.jsonl"), lasts=False)
    unused: Any = None
    with pytest.raises(FederationError, match="Flower's own loop"):
        strategy(budget).configure_train(1, unused, unused, unused)


def test_no_supernode_says_where_the_server_s_ledger_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remote SuperNodes that claim to be a simulation's: the ledger stays where it lasts over runs."""
    monkeypatch.setattr("fedapp.server.run.is_own", lambda _: False)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
    monkeypatch.setenv("HOME", str(tmp_path))
    go(tmp_path / "run", f"{DEVICES} privacy.new_ledger=true", num_nodes=4)
    assert not (tmp_path / "run" / "ledgers").exists()
    assert len(FileLedger(tmp_path / "flower" / "fedapp-client-privacy.jsonl").entries()) == 1


def test_outside_a_simulation_each_client_has_a_supernode_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedapp.server.run.is_own", lambda _: False)
    with pytest.raises(FederationError, match="SuperNode 100 hosts 15 clients"):
        go(tmp_path / "run")


def test_a_supernode_that_comes_back_as_another_client_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its reply for two clients would be one sum, which may be as long as two clipping norms."""
    monkeypatch.setattr("fedapp.server.run.is_own", lambda _: False)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
    monkeypatch.setenv("HOME", str(tmp_path))
    overrides = f"{DP} {DEVICES} federation.num_rounds=5 federation.fraction_train=1 privacy.new_ledger=true"

    class Restless(InProcessGrid):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            messages = list(messages)
            if messages and messages[0].metadata.group_id == "2" and 101 in self.contexts:
                del self.contexts[101], self.contexts[100]
            if messages and messages[0].metadata.group_id == "3":
                self.contexts[100] = make_context(100, {"partition-id": 1, "num-partitions": 4}, overrides)
            return super().push_messages(messages)

    grid = Restless(overrides, 4)
    run_on(grid, tmp_path / "run", f"{overrides} run.output_dir={tmp_path / 'run'}")
    sent = [message for message in grid.sent if message.metadata.message_type == "train"]
    assert {len(unpack_instruction(message.content)[0].clients) for message in sent} == {1}
    assert "client 1 of SuperNode 100 takes no part: it is another client already" in caplog.text


def test_two_runs_of_one_seed_differ_in_cohort_and_model(run: Path, grid: InProcessGrid, tmp_path: Path) -> None:
    other = InProcessGrid(DP)
    run_on(other, tmp_path / "run", f"{DP} run.output_dir={tmp_path / 'run'}")
    assert summary(tmp_path / "run")["model_sha256"] != summary(run)["model_sha256"]
    assert cohorts(other) != cohorts(grid)
    by_seed = [CohortRule(0, 0.5).sample(range(30), 15, number) for number in (1, 2, 3)]
    assert by_seed not in (cohorts(grid), cohorts(other))


def cohorts(grid: InProcessGrid) -> list[list[int]]:
    found: dict[int, list[int]] = {1: [], 2: [], 3: []}
    for message in grid.sent:
        if message.metadata.message_type == "train":
            instruction, _ = unpack_instruction(message.content)
            found[instruction.server_round] += instruction.clients
            assert set(instruction.weights) == {2.0**-6}  # twice 30, as a power of two
    return [sorted(found[number]) for number in (1, 2, 3)]


def test_an_empty_round_adds_noise_and_counts(tmp_path: Path) -> None:
    directory = go(tmp_path / "run", "federation.fraction_train=1e-9 privacy.noise_multiplier=1")
    assert len(ledger(directory).entries()) == 3
    models = {line["test_loss"] for line in lines(directory)}
    assert len(models) == 4  # noise has moved it each time
    assert summary(directory)["status"] == "finished"


def test_clients_that_are_not_there_add_nothing_and_the_divisor_stays(tmp_path: Path) -> None:
    """With no noise and everybody asked: half of them gone means half the update."""

    def half(message: Message) -> Message | None:
        return None if message.metadata.message_type == "train" and message.metadata.src_node_id == 101 else message

    quiet = "privacy.noise_multiplier=0 federation.fraction_train=1 federation.num_rounds=1 partition=iid"
    quiet += " privacy.clipping_norm=0.01 federation.round_timeout=1"
    models = {}
    for name, tamper in (("all", lambda message: message), ("half", half)):
        go(tmp_path / name, quiet, tamper=tamper)
        models[name] = load_file(tmp_path / name / "model.safetensors")
    before = check_config(compose(f"{DP} {quiet}".split())).parts.whole.state_dict()
    moved = {name: sum(float((m[k] - before[k]).norm()) ** 2 for k in m) ** 0.5 for name, m in models.items()}
    assert moved["all"] <= 0.01
    assert moved["half"] == pytest.approx(moved["all"] / 2, rel=0.1)


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_budget_ends_the_run(tmp_path: Path, rounds: int) -> None:
    limit = epsilon([Spending(2.0, 0.5, rounds)], 1e-5, "rdp") + 1e-6
    found = summary(go(tmp_path / "run", f"federation.num_rounds=9 privacy.target_epsilon={limit}"))
    assert found["rounds"] == rounds
    assert found["stop_reason"].startswith("privacy budget: one more round would cost epsilon")
    assert found["epsilon_max"] <= limit


def test_noise_is_calibrated_to_the_target(tmp_path: Path) -> None:
    found = summary(go(tmp_path / "run", "privacy.target_epsilon=2 privacy.noise_multiplier=null"))
    assert found["rounds"] == 3
    assert 1.98 <= found["epsilon_max"] <= 2.0


def test_a_resumed_round_is_drawn_anew_and_counted_again(tmp_path: Path) -> None:
    """Killed after a round was paid for, at the earliest and at the latest moment: never less is in the ledger than was
    used."""
    directory = tmp_path / "run"

    class Killed(BaseException):
        pass

    def kill(message: Message) -> Message:
        if message.metadata.message_type == "train" and message.metadata.group_id == "2":
            raise Killed
        return message

    with pytest.raises(Killed):
        go(directory, tamper=kill)
    assert [entry.server_round for entry in ledger(directory).entries()] == [1, 2]
    go(directory, "run.resume=auto")
    assert [entry.server_round for entry in ledger(directory).entries()] == [1, 2, 2, 3]
    assert summary(directory)["privacy"]["rounds_in_ledger"] == 4
    assert summary(directory)["epsilon_max"] == pytest.approx(epsilon([Spending(2.0, 0.5, 4)], 1e-5, "rdp"))


def test_a_round_is_on_the_disk_before_anybody_is_asked(tmp_path: Path) -> None:
    seen: list[int] = []

    def note(message: Message) -> Message:
        if message.metadata.message_type == "train":
            assert len(ledger(tmp_path / "run").entries()) == int(message.metadata.group_id)
            seen.append(int(message.metadata.group_id))
        return message

    go(tmp_path / "run", tamper=note)
    assert set(seen) == {1, 2, 3}


def test_a_spent_ledger_begins_no_round(tmp_path: Path) -> None:
    limit = epsilon([Spending(2.0, 0.5, 3)], 1e-5, "rdp") + 1e-6
    directory = tmp_path / "run"
    go(directory, f"privacy.target_epsilon={limit}")
    (directory / "metrics.jsonl").unlink()  # a run anew, in the folder of the same ledger
    for file in (directory / "checkpoint").iterdir():
        file.unlink()
    with pytest.raises(FederationError, match="no round can begin: privacy budget"):
        go(directory, f"privacy.target_epsilon={limit}")
    assert len(ledger(directory).entries()) == 3


def test_a_damaged_ledger_stops_the_run(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    (directory / "ledgers").mkdir(parents=True)
    (directory / "ledgers" / "server.jsonl").write_text('{"round": 1}\n')
    with pytest.raises(FederationError, match="is damaged"):
        go(directory)


# --- the ledger is not lost in silence ----------------------------------------------------------------------------


@pytest.fixture
def deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Runs with devices, whose server has its ledger in Flower's folder."""
    monkeypatch.setattr("fedapp.server.run.is_own", lambda _: False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
    numbers = count()

    def run(more: str = "") -> Path:
        return go(tmp_path / f"run-{next(numbers)}", f"{DEVICES} {more}", num_nodes=4)

    return run


def test_a_lasting_ledger_is_begun_on_request_alone(deployed: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(FederationError, match=r"there is none.*Put it back.*FLWR_HOME.*privacy\.new_ledger=true"):
        deployed()
    assert not (tmp_path / "run-0").exists()
    deployed("privacy.new_ledger=true")
    assert summary(deployed())["privacy"]["rounds_in_ledger"] == 2  # from then on without


def test_it_says_where_a_ledger_begins_and_what_is_in_it(
    deployed: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for number in (1, 2):
        deployed("privacy.new_ledger=true" if number == 1 else "")
        said = [record for record in caplog.records if "ledger" in record.message]
        path = tmp_path / "flower" / "fedapp-client-privacy.jsonl"
        words = ("begins a new ledger, at epsilon 0", "1 rounds are in the ledger")[number - 1]
        assert any(words in record.message and str(path) in record.message for record in said)
        assert any(record.levelname == "WARNING" for record in said) == (number == 1)
        caplog.clear()


def test_a_ledger_that_is_there_is_not_begun(deployed: Callable[..., Path], tmp_path: Path) -> None:
    """A run that goes on may have begun it."""
    deployed("privacy.new_ledger=true")
    with pytest.raises(FederationError, match=r"new_ledger=true: 1 rounds are in the ledger .* already"):
        deployed("privacy.new_ledger=true")
    assert not (tmp_path / "run-1").exists()
    more = "federation.num_rounds=2 run.resume=auto privacy.new_ledger=true"
    assert summary(go(tmp_path / "run-0", f"{DEVICES} {more}", num_nodes=4))["privacy"]["rounds_in_ledger"] == 2


def test_heads_that_cannot_be_written_are_noticed_before_a_round(
    deployed: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = write_atomically

    def read_only(path: Path, content: bytes, **options: Any) -> None:
        if ".client-privacy" in path.parts:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        real(path, content, **options)

    monkeypatch.setattr("fedapp.privacy.ledger.write_atomically", read_only)
    folder = tmp_path / "home" / "fedapp-runs" / ".client-privacy"
    with pytest.raises(FederationError, match=rf"copy of its head.*Read-only file system: '{folder}.*HOME"):
        deployed("privacy.new_ledger=true")
    assert not (tmp_path / "run-0").exists()
    assert FileLedger(tmp_path / "flower" / "fedapp-client-privacy.jsonl").entries() == []


def another(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_HOME", str(home.with_name("other")))


def gone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(home)


def emptied(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "fedapp-client-privacy.jsonl").write_text("")


def rolled_back(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(home)
    shutil.copytree(home.with_name("old"), home)


def copied(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_HOME", str(home.with_name("old")))


@pytest.mark.parametrize(
    ("lose", "more", "named"),
    [
        (copied, "", "there were 2 lines"),
        (another, "", "there is none, and what these clients have spent is not known"),
        (gone, "privacy.new_ledger=true", "there were 2 lines"),
        (emptied, "privacy.new_ledger=true", "there were 2 lines"),
        (rolled_back, "", "there were 2 lines"),
        (rolled_back, "privacy.new_ledger=true", "there were 2 lines"),
    ],
)
def test_a_lost_or_older_ledger_is_refused(
    deployed: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lose: Callable[[Path, pytest.MonkeyPatch], None],
    more: str,
    named: str,
) -> None:
    """The folder of runs knows what was in Flower's."""
    home = tmp_path / "flower"
    deployed("privacy.new_ledger=true")
    shutil.copytree(home, tmp_path / "old")
    deployed()
    lose(home, monkeypatch)
    with pytest.raises(FederationError, match=named):
        deployed(more)
    assert not (tmp_path / "run-2").exists()


@pytest.mark.parametrize("lose", ["the folder", "the last round"])
def test_a_resumed_run_knows_what_was_in_its_ledger(tmp_path: Path, lose: str) -> None:
    directory = tmp_path / "run"
    go(directory, "federation.num_rounds=2")
    path = directory / "ledgers" / "server.jsonl"
    first, *_ = path.read_text().splitlines(keepends=True)
    shutil.rmtree(path.parent)
    if lose == "the last round":
        FileLedger(path).held().__enter__()  # the folder
        path.write_text(first)
    with pytest.raises(
        FederationError, match=r"there were 2 lines \(the run's checkpoint knows\).*put the ledger back"
    ):
        go(directory, "federation.num_rounds=3 run.resume=auto")


# --- metrics ------------------------------------------------------------------------------------------------------

METRICS = "privacy.metrics_epsilon=1 train.val_fraction=0.2"


def test_metrics_are_paid_for_by_a_share_of_the_budget(tmp_path: Path) -> None:
    """A round costs the same with them; updates have the more noise."""
    directory = go(tmp_path / "run", METRICS, report=True)
    assert {entry.spent for entry in ledger(directory).entries()} == {Spending(2.0, 0.5, 1)}
    found = summary(directory)["privacy"]
    metrics = found["metrics"]
    assert metrics["sensitivity"] == pytest.approx((1 + 2 / 4) ** 0.5)
    assert metrics["ranges"] == {"loss": [0.0, 5.0], "accuracy": [0.0, 1.0]}
    assert 0.98 <= epsilon([Spending(metrics["noise_multiplier"], 0.5, 3)], 1e-5, "rdp") <= 1.0
    together = (found["update_noise_multiplier"] ** -2 + metrics["noise_multiplier"] ** -2) ** -0.5
    assert together == pytest.approx(found["noise_multiplier"]) == 2.0
    for line in lines(directory)[1:]:
        assert {"val_loss", "val_accuracy"} <= line.keys()
        assert line["epsilon_max"] == pytest.approx(epsilon([Spending(2.0, 0.5, line["round"])], 1e-5, "rdp"))
    assert (directory / "clients.jsonl").read_text() == ""


def test_it_says_what_metrics_leave_to_the_updates() -> None:
    for more, words in (("", None), (METRICS, "would be 2 in place of")):
        config = compose(f"{DP} {more}".split())
        parts = check_config(config).parts
        found = privacy_of(config).foresight(config, parts).facts[0]
        assert ("privacy.metrics_epsilon" in found) == (words is not None)
        if words is not None:
            assert f"{words} {privacy_of(config).summary(config, parts)['update_noise_multiplier']:.3g}" in found


def test_without_noise_they_are_the_validation_metrics(tmp_path: Path) -> None:
    """Of the model that the round began with, as a run without privacy has them."""
    quiet = (
        "privacy.metrics_epsilon=1e9 privacy.noise_multiplier=0 train.val_fraction=0.2 privacy.metrics_count_cap=999"
    )
    quiet += " federation.fraction_train=1 federation.num_rounds=1"
    noised = lines(go(tmp_path / "noised", quiet))[1]
    plain = "model=logistic_regression partition=size_skewed federation.num_clients=30 train.val_fraction=0.2"
    plain += " federation.fraction_train=1 federation.num_rounds=1"
    told = lines(run_in_process(tmp_path / "plain", f"{plain} run.output_dir={tmp_path / 'plain'}"))[1]
    for name in ("val_loss", "val_accuracy"):
        assert noised[name] == pytest.approx(told[name], abs=0.02)


def test_only_their_sums_leave_a_supernode(tmp_path: Path) -> None:
    """No client's loss or metric in any message; and none at all where nothing pays for it."""
    for more, scalars in ((METRICS, {"scalar/val-examples", "scalar/val-loss", "scalar/val-accuracy"}), ("", set())):
        grid = InProcessGrid(f"{DP} {more}")
        directory = tmp_path / str(len(scalars))
        run_on(grid, directory, f"{DP} {more} federation.num_rounds=1 run.output_dir={directory}")
        sent = [message for message in grid.received if message.metadata.message_type == "train"]
        names = {
            name.rpartition("scalar/")[1] + name.rpartition("scalar/")[2]
            for message in sent
            for record in message.content.array_records.values()
            for name in record
            if "scalar/" in name
        }
        assert names == scalars
        for message in sent:
            columns = message.content.metric_records["metrics"]
            told = [v for name, values in columns.items() if name.startswith(("val", "train")) for v in values]  # type: ignore[union-attr]
            assert not [value for value in told if value == value and value]
        assert any(name.startswith("val_") for line in lines(directory) for name in line) == bool(scalars)


# --- adaptive clipping --------------------------------------------------------------------------------------------


def test_the_clipping_norm_follows_the_quantile(tmp_path: Path) -> None:
    quiet = "privacy.quantile=0.5 privacy.noise_multiplier=0.01 privacy.quantile_noise=0.1 federation.num_rounds=8"
    quiet += " privacy.clipping_norm=5 privacy.quantile_rate=1.5 federation.fraction_train=1"
    directory = go(tmp_path / "run", quiet, report=True)
    norms = [line["clipping_norm"] for line in lines(directory)[1:]]
    shares = [line["share_clipped"] for line in lines(directory)[1:]]
    assert norms[0] == 5.0
    assert shares[0] < 0.1  # all are shorter than that
    assert all(later < earlier for earlier, later in pairwise(norms[:3]))  # so it falls, until half of them are longer
    assert max(shares) > 0.3
    assert summary(directory)["privacy"]["update_noise_multiplier"] > summary(directory)["privacy"]["noise_multiplier"]
    page = (directory / "report.html").read_text()
    assert "updates clipped (noised)" in page
    assert "clipping norm" in page


def test_a_resumed_run_goes_on_with_its_clipping_norm(tmp_path: Path) -> None:
    adaptive = "privacy.quantile=0.5 run.resume=auto"
    go(tmp_path / "run", f"{adaptive} federation.num_rounds=2")
    first = lines(tmp_path / "run")
    go(tmp_path / "run", f"{adaptive} federation.num_rounds=3")
    assert lines(tmp_path / "run")[: len(first)] == first
    assert lines(tmp_path / "run")[-1]["clipping_norm"] != 1.0


# --- what goes with it, and what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        "federation.personal=head model=mlp federation.fraction_train=1",
        "strategy=fedadam",
        "secure_aggregation=secaggplus federation.personal=head model=mlp",
        "privacy.count_cap=20",
        "strategy=fedprox",
    ],
)
def test_what_goes_with_it(tmp_path: Path, more: str) -> None:
    directory = go(tmp_path / "run", f"federation.num_rounds=2 {more}")
    assert summary(directory)["status"] == "finished"
    assert summary(directory)["rounds"] == 2


def test_single_examples_can_be_protected_too(tmp_path: Path) -> None:
    """Each client pays for its examples, and tells nobody; the server pays for whole clients."""
    both = DP.replace("privacy=client_dp", "privacy=client_and_example_dp")
    both += " privacy.examples.accountant=rdp privacy.examples.noise_multiplier=1 privacy.examples.sample_rate=0.5"
    directory = tmp_path / "run"
    grid = InProcessGrid(f"{both} run.output_dir={directory}")
    run_on(grid, directory, f"{both} run.output_dir={directory}")
    assert len(ledger(directory).entries()) == 3
    own = sorted((directory / "ledgers").glob("client-*.jsonl"))
    assert own
    assert {entry.spent for file in own for entry in FileLedger(file).entries()} == {Spending(1.0, 0.5, 2)}
    assert (directory / "clients.jsonl").read_text() == ""
    assert "epsilon" not in {name for m in grid.received for r in m.content.metric_records.values() for name in r}
    assert summary(directory)["privacy"]["examples"]["unit"] == "one example of one client's data"


@pytest.mark.parametrize(
    ("option", "more", "named"),
    [
        (
            "client_and_example_dp",
            "federation.fraction_train=0.5",
            "privacy=client_and_example_dp: each client of a simulation",
        ),
        ("client_dp", "federation/personal=head model=mlp", "federation.personal: each client of a simulation"),
    ],
)
def test_what_would_write_the_secret_cohort_is_refused(tmp_path: Path, option: str, more: str, named: str) -> None:
    """Ledgers and heads of single clients tell in which rounds they were drawn."""
    with pytest.raises(ConfigError, match=re.escape(named)):
        go(tmp_path / "run", more, option=option)
    with pytest.raises(ConfigError, match=re.escape(named)):
        check(compose(f"{DP.replace('client_dp', option)} {more}".split()), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("privacy.examples.sample_rate=2", "privacy.examples.sample_rate=2"),
        ("secure_aggregation=secaggplus", "privacy.examples: with secure_aggregation"),
        ("train.max_seconds=5", "train.max_seconds"),
        ("privacy.metrics_epsilon=1 train.val_fraction=0.2", "privacy.metrics_epsilon=1: with privacy=client_and"),
    ],
)
def test_what_does_not_go_with_both_is_refused(tmp_path: Path, more: str, named: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(named)):
        go(tmp_path / "run", more, option="client_and_example_dp")


@pytest.mark.parametrize("task", ["head", "lora"])
def test_transfer_learning_goes_with_it(tmp_path: Path, task: str) -> None:
    """What is frozen gets no noise."""
    before = DP.replace("model=logistic_regression partition=size_skewed", f"{EVERY_TASK[task]} partition=iid")
    overrides = before.replace("num_clients=30 federation.num_rounds=3", "num_clients=3 federation.num_rounds=1")
    directory = run_in_process(tmp_path / "run", overrides)
    assert summary(directory)["status"] == "finished"
    whole = check_config(compose(overrides.split())).parts.whole
    trained = {name for name, parameter in whole.named_parameters() if parameter.requires_grad}
    found = load_file(directory / "model.safetensors")
    changed = {name for name, value in whole.state_dict().items() if not torch.equal(found[name], value)}
    assert changed == trained


def test_the_delivered_model_is_the_noised_one(tmp_path: Path) -> None:
    configs = []
    for number in range(2):
        table = tmp_path / f"{number}.csv"
        table.write_text("a,b,ill\n" + "".join(f"{i % 7},{i % 5},{'yn'[i % 7 > 3]}\n" for i in range(40)))
        configs.append({"data-path": str(table), "partition-id": number, "keep-path": str(tmp_path / f"keep-{number}")})
    overrides = (
        "privacy=client_dp privacy.accountant=rdp data=csv data.label=ill data.numeric=[a,b] data.categorical={}"
        " data.classes=[y,n] data.scaling=none model=logistic_regression federation.num_rounds=1"
        " federation.deliver=true privacy.noise_multiplier=5"
    )
    home = tmp_path / "flower"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLWR_HOME", str(home))
        patch.setenv("HOME", str(tmp_path))
        directory = run_in_process(tmp_path / "run", f"{overrides} privacy.new_ledger=true", node_configs=configs)
        again = run_in_process(tmp_path / "again", overrides, node_configs=configs)
    sent = load_file(directory / "model.safetensors")
    stored = load_file(tmp_path / "keep-0" / "models" / "latest" / "model.safetensors")
    assert stored.keys() == sent.keys()
    assert summary(directory)["delivered"] is None
    # Of devices the ledger is in the folder of Flower's files, beside the register, and lasts over runs.
    assert len(FileLedger(home / "fedapp-client-privacy.jsonl").entries()) == 2
    assert summary(again)["privacy"]["rounds_in_ledger"] == 2


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ("federation.min_clients=2", "federation.min_clients=2"),
        ("federation.over_selection=0.5", "federation.over_selection=0.5"),
        ("federation.exclude_after=3", "federation.exclude_after=3"),
        ("federation.final_evaluation=true", "federation.final_evaluation=true"),
        ("train.val_fraction=0.1", "train.val_fraction=0.1"),
        ("privacy.metrics_epsilon=1", "privacy.metrics_epsilon=1: is for metrics of validation splits"),
        ("privacy.metrics_epsilon=100 train.val_fraction=0.2", "nothing is left for the updates"),
        ("privacy.metrics_epsilon=0 train.val_fraction=0.2", "privacy.metrics_epsilon=0"),
        (
            "secure_aggregation=secaggplus privacy.metrics_epsilon=1 train.val_fraction=0.2",
            "privacy.metrics_epsilon=1: with secure_aggregation",
        ),
        ("strategy=median", "strategy.aggregation"),
        ("strategy=krum", "strategy.aggregation"),
        ("strategy.max_update_norm=1", "strategy.max_update_norm=1"),
        ("strategy.weight_cap=5", "strategy.weight_cap=5"),
        ("data=breast_cancer", "data.scaling"),
        ("task.loss.class_weights=balanced", "task.loss.class_weights"),
        (f"{BODY.replace('task.metrics=auto ', '')} model.trainable=full", "running statistics"),
        ("privacy.delta=0.1", "privacy.delta=0.1"),
        ("privacy.noise_multiplier=null", "one of them is needed"),
        ("privacy.quantile=0.5 privacy.quantile_noise=0.5", "privacy.quantile_noise=0.5"),
        ("privacy.population=1000000000 privacy.clipping_norm=0.0001 model=mlp", "privacy.clipping_norm=0.0001"),
        ("privacy.clipping_norm=0", "privacy.clipping_norm=0"),
        ("secure_aggregation=secaggplus privacy.quantile=0.5", "privacy.quantile=0.5"),
        ("secure_aggregation=secaggplus strategy=median", "strategy.aggregation"),
        (
            "secure_aggregation=secaggplus secure_aggregation.modulus_bits=16 privacy.population=100000 model=mlp",
            "secure_aggregation.modulus_bits=16",
        ),
    ],
)
def test_what_would_leave_a_client_uncovered_is_refused(tmp_path: Path, overrides: str, named: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(named)):
        go(tmp_path / "run", overrides)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_a_model_of_other_values_is_refused_by_name(dtype: torch.dtype) -> None:
    config = compose(DP.split())
    parts = check_config(config).parts
    name = next(iter(parts.model.state_dict()))
    parts.model.to(dtype)
    with pytest.raises(ConfigError, match=rf"{name} of the model is {str(dtype).split('.')[1]}.*model\.float\(\)"):
        privacy_of(config).conflicts(config, parts)


def test_more_clients_than_the_public_constant_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match=r"privacy.population=29: more clients can take part"):
        go(tmp_path / "run", "privacy.population=29")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("federation.num_clients=12", ["12 clients", "privacy=dp_sgd"]),
        ("model=cnn federation.num_clients=100", ["parameters are too many for 100 clients", "about"]),
        ("secure_aggregation=secaggplus model=cnn federation.num_clients=100", ["are too many for 100 clients"]),
        ("privacy.noise_multiplier=0.01 federation.num_clients=1000 privacy.population=1000", []),
    ],
)
def test_it_says_when_it_is_pointless(overrides: str, words: list[str]) -> None:
    config = compose(f"{DP} {overrides}".split())
    checked = check_config(config)
    found = privacy_of(config).foresight(config, checked.parts)
    assert "client-level DP: in each round's mean the noise has a norm of" in found.facts[0]
    assert "sqrt(" in found.facts[0]
    assert len(found.warnings) == bool(words)
    assert all(word in found.warnings[0] for word in words)


def test_the_warning_is_in_the_report(tmp_path: Path) -> None:
    directory = go(tmp_path / "run", "federation.num_clients=10 federation.num_rounds=1")
    assert any("so few cannot have client-level privacy" in text for text in summary(directory)["warnings"])
