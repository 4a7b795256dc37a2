"""Whole runs of client-level DP without a trusted server: what devices ask for, pay, and reveal."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from array_values import values_of
from flwr.app import Message
from in_process import InProcessGrid, run_in_process, run_on
from own_keys import write_keys
from secure_rounds import play
from secure_runs import QUICK, lines, rows, summary

from fedapp.aggregation.secaggplus.least_sum import LeastSum
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.whole_numbers.noised_sum import noised_vector
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.client.handlers import open_run
from fedapp.common.errors import ConfigError, FederationError
from fedapp.config import compose
from fedapp.learning.build import build_parts
from fedapp.learning.training import LocalTraining
from fedapp.privacy.accounting import SkellamSpending, epsilon
from fedapp.privacy.ledger import FileLedger
from fedapp.privacy.option import privacy_of
from fedapp.server.check_config import check_config
from fedapp.wire.instruction import Instruction
from fedapp.wire.reply import ClientReport, PrivacySpent

pytestmark = pytest.mark.slow

DP = (
    "privacy=client_dp secure_aggregation=secaggplus model=logistic_regression partition=iid federation.num_clients=6"
    " federation.fraction_train=1 federation.num_rounds=2 privacy.noise_multiplier=3 privacy.target_epsilon=null"
)


def cost(overrides: str) -> SkellamSpending:
    config = compose(overrides.split())
    made = privacy_of(config).noised_integers(config, build_parts(config))
    assert made is not None
    return SkellamSpending(made.variance, made.l2, made.l1, 1)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("distributed") / "run"


@pytest.fixture(scope="module")
def grid(directory: Path) -> InProcessGrid:
    return InProcessGrid(f"{DP} run.output_dir={directory}", 6)


@pytest.fixture(scope="module")
def run(grid: InProcessGrid, directory: Path) -> Path:
    return run_on(grid, directory, f"{DP} run.output_dir={directory}", report=True)


def test_each_client_pays_for_its_rounds_from_its_own_ledger(run: Path) -> None:
    expected = [epsilon([cost(DP)] * count, 1e-5, "rdp") for count in (1, 2)]
    for client, row in rows(run, 2).items():
        assert row["epsilon"] == pytest.approx(expected[1])
        assert row["sample_rate"] == 1.0
        assert (row["noise_multiplier"], row["delta"]) == (pytest.approx(3.0), 1e-5)
        assert "epsilon_disputed" not in row
        assert [row[name] for name in ("num_examples", "steps", "seconds", "train_loss")] == [1, 0, None, None]
        entries = FileLedger(run / "ledgers" / f"client-{client}.clients.jsonl").entries()
        assert [entry.spent for entry in entries] == [cost(DP)] * 2
    found = summary(run)
    assert found["epsilon_max"] == pytest.approx(expected[1])
    assert found["privacy"]["accountant"] == "rdp"
    assert "zeros in its place" in found["privacy"]["unit"]
    assert all(line.get("wrapped") == 0.0 for line in lines(run, "metrics.jsonl")[1:])


def test_messages_hold_nothing_but_masked_whole_numbers(grid: InProcessGrid, run: Path) -> None:
    """No metric goes along with the update: none has noise of its own."""
    parts = build_parts(compose(DP.split()))
    length = sum(value.numel() for value in parts.model.parameters())
    masked = [m for m in grid.received if any("arrays" in name for name in m.content.array_records)]
    assert masked
    for message in masked:
        for record in message.content.array_records.values():
            for array in record.values():
                assert values_of(array).dtype == np.uint8
                assert values_of(array).size == 4 * -(-length // 1024) * 1024  # rotated, of 32 bits each


def test_two_runs_of_one_seed_differ(run: Path, tmp_path: Path) -> None:
    other = run_in_process(tmp_path / "run", DP, 6)
    assert summary(other)["model_sha256"] != summary(run)["model_sha256"]


def test_more_rounds_than_a_client_may_take_part_in_are_declined(tmp_path: Path) -> None:
    directory = run_in_process(tmp_path / "run", f"{DP} federation.num_rounds=5 privacy.max_participations=2", 6)
    found = summary(directory)
    assert (found["rounds"], found["declined"]) == (3, 6)
    assert "privacy budget" in found["stop_reason"]


def test_models_go_out_as_differences_of_noised_models(tmp_path: Path) -> None:
    """Whose cohorts are no secret: a difference is made of models that are released."""
    overrides = f"{DP} downlink=differences federation.num_rounds=3 privacy.max_participations=3"
    grid = InProcessGrid(overrides, 6)
    found = summary(run_on(grid, tmp_path / "run", overrides))
    assert (found["status"], found["rounds"]) == ("finished", 3)
    assert not [row for row in lines(tmp_path / "run", "clients.jsonl") if row.get("rejected")]
    brought = [m.content.array_records.get("differences") for m in grid.sent if m.metadata.message_type == "train"]
    assert [len(record) for record in brought if record is not None] == [1] * 12
    assert found["epsilon_max"] == pytest.approx(epsilon([cost(overrides)] * 3, 1e-5, "rdp"))


def test_a_resumed_run_goes_on_counting_its_rounds(tmp_path: Path) -> None:
    """Flower gives it a new number; it counts by the run's own name."""
    directory = tmp_path / "run"
    overrides = f"{DP} privacy.max_participations=2 run.resume=auto run.output_dir={directory}"
    for rounds, number in ((1, 1), (5, 2)):
        grid = InProcessGrid(overrides, 6)
        for context in grid.contexts.values():
            context.run_id = number
        run_on(grid, directory, f"{overrides} federation.num_rounds={rounds}")
    found = summary(directory)
    assert "privacy budget" in found["stop_reason"]
    for client in range(6):
        assert len(FileLedger(directory / "ledgers" / f"client-{client}.clients.jsonl").entries()) == 2


def test_noise_is_calibrated_to_the_participations(tmp_path: Path) -> None:
    more = "privacy.noise_multiplier=null privacy.target_epsilon=3 federation.num_rounds=2"
    found = summary(run_in_process(tmp_path / "run", f"{DP} {more}", 6))
    assert 2.98 <= found["epsilon_max"] <= 3.0


def without(clients: set[int]) -> Callable[[Message], Message | None]:
    def tamper(reply: Message) -> Message | None:
        gone = reply.metadata.src_node_id - 100 in clients
        return None if gone and "arrays" in reply.content.array_records else reply

    return tamper


@pytest.mark.parametrize("gone", [1, 2])
def test_with_more_dropouts_than_tolerated_nothing_is_unmasked(tmp_path: Path, gone: int) -> None:
    """Six clients with a sixth tolerated: five are enough, four are not."""
    overrides = f"{DP} {QUICK} privacy.tolerated_dropouts=0.17 federation.num_rounds=1".replace(
        "masked_timeout=0.1", "masked_timeout=3"
    )
    if gone == 1:
        found = rows(run_in_process(tmp_path / "run", overrides, 6, tamper=without({0})), 1)
        assert [client for client, row in found.items() if row["rejected"]] == [0]
        return
    with pytest.raises(FederationError, match="no round had"):
        run_in_process(tmp_path / "run", overrides, 6, tamper=without({0, 1}))
    assert all(
        "4 clients sent a masked vector, 5 are needed" in row["unused"]
        for c, row in rows(tmp_path / "run", 1).items()
        if c > 1
    )


def failing(*clients: int) -> Callable[..., Any]:
    """Training that ends as no number, as an error, and as an update too large to be summed."""
    trained = LocalTraining.__call__

    def spoilt(self: LocalTraining, model: Any, examples: Any, **options: Any) -> Any:
        (_, _, client) = options["seed"]
        result = trained(self, model, examples, **options)
        if client == clients[0]:
            next(model.parameters()).data.fill_(torch.nan)
        elif client == clients[1]:
            raise RuntimeError("the label is 1")
        elif client == clients[2]:
            next(model.parameters()).data.fill_(2.0**21)
        return result

    return spoilt


def test_a_client_that_has_paid_never_rejects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its failure would be a bit of its data without noise: it sends zeros, with noise, and reports as any other."""
    monkeypatch.setattr(LocalTraining, "__call__", failing(1, 2, 3))
    directory = run_in_process(tmp_path / "run", f"{DP} federation.num_rounds=1 privacy.tolerated_dropouts=0", 6)
    told = rows(directory, 1)
    assert (
        len({json.dumps({k: v for k, v in row.items() if k not in ("client", "node")}) for row in told.values()}) == 1
    )
    assert all(row["rejected"] is None for row in told.values())
    assert summary(directory)["faults"] == {}
    for client in (1, 2, 3):
        assert f"client {client} sends noise alone" in caplog.text


def test_zeros_with_noise_are_sent_in_place_of_an_update() -> None:
    config = compose(f"{DP} privacy.noise_multiplier=0".split())
    noised = privacy_of(config).noised_integers(config, build_parts(config))
    assert noised is not None
    model = {"w": torch.zeros(noised.trained.shape)}  # type: ignore[attr-defined]
    paid = PrivacySpent(1.0, 1.0, 1.0, 1e-5)

    def sent(report: ClientReport) -> tuple[ClientReport, Any]:
        return noised_vector(3, noised, Instruction(1, (3,), (1.0,)), model, lambda *_: (report, {}))

    report, whole = sent(ClientReport(3, rejected="not finite", privacy=paid))
    assert (report.rejected, report.privacy) == (None, paid)
    assert whole is not None
    assert not whole.any()
    assert sent(ClientReport(3, rejected="no ledger"))[1] is None  # nothing was paid, so nothing was trained
    assert sent(ClientReport(3, declined=True))[1] is None


# --- devices ------------------------------------------------------------------------------------------------------

TABLES = (
    "data=csv data.label=ill data.numeric=[a,b] data.categorical={} data.classes=[y,n] data.scaling=none"
    " model=logistic_regression federation.fraction_train=1 federation.num_clients=4 federation.num_rounds=1"
    " privacy=client_dp secure_aggregation=secaggplus privacy.target_epsilon=6 privacy.tolerated_dropouts=0"
)


def devices(tmp_path: Path, **third: Any) -> list[dict[str, Any]]:
    keys = write_keys(tmp_path / "keys-of", 4)
    configs: list[dict[str, Any]] = []
    for number in range(4):
        table = tmp_path / f"{number}.csv"
        table.write_text("a,b,ill\n" + "".join(f"{i % 7},{(i * number) % 5},{'yn'[i % 7 > 3]}\n" for i in range(41)))
        configs.append(
            {
                "data-path": str(table),
                "partition-id": number,
                "ledger-path": str(tmp_path / f"ledger-{number}"),
                "keep-path": str(tmp_path / f"keep-{number}"),
                "signing-key": str(keys / f"device-{number}"),
                "peers": str(keys / "keys"),
                "min-cohort": 3,
            }
        )
    configs[2] |= third
    return [{key: value for key, value in config.items() if value is not None} for config in configs]


def test_devices_take_part_and_keep_their_ledgers(tmp_path: Path) -> None:
    configs = devices(tmp_path)
    directory = run_in_process(tmp_path / "run", TABLES, node_configs=configs)
    assert summary(directory)["status"] == "finished"
    assert summary(directory)["faults"] == {}
    for number in range(4):
        (entry,) = FileLedger(tmp_path / f"ledger-{number}.clients").entries()
        assert isinstance(entry.spent, SkellamSpending)
        assert (tmp_path / f"keep-{number}" / "ledger.clients.head").exists()
        assert not (tmp_path / f"ledger-{number}").exists() or not (tmp_path / f"ledger-{number}").read_text()
    with pytest.raises(FederationError, match="no round had"):
        run_in_process(tmp_path / "second", f"{TABLES} run.seed=1", node_configs=configs)
    told = rows(tmp_path / "second", 1).values()
    assert all(row["unused"].startswith("declined") for row in told)  # the first run has spent it all


@pytest.mark.parametrize(
    ("third", "overrides", "why"),
    [
        ({"peers": None, "min-cohort": None}, "", "peers, min-cohort: under privacy=client_dp"),
        ({"min-cohort": None}, "", "peers, min-cohort: under privacy=client_dp"),
        ({"honest-share": 0.5}, "", "privacy.honest_share=0.9: this SuperNode's operator takes fewer"),
        ({}, "privacy.honest_share=0.95", "privacy.honest_share=0.95: this SuperNode's operator takes fewer"),
        ({"max-epsilon": 0.5}, "privacy.noise_multiplier=0.8 privacy.target_epsilon=100", "one round alone costs more"),
        ({}, "privacy.noise_multiplier=0 privacy.target_epsilon=null", "privacy.noise_multiplier=0"),
        ({}, "privacy.noise_source=seeded_for_tests", "privacy.noise_source=seeded_for_tests: not on a device"),
    ],
)
def test_what_a_device_does_not_accept(tmp_path: Path, third: dict[str, Any], overrides: str, why: str) -> None:
    config = devices(tmp_path, **third)[2]
    grid = InProcessGrid(f"{TABLES} {overrides}", node_configs=[config])
    with pytest.raises(ConfigError, match=re.escape(why)):
        open_run(grid.contexts[100])


def test_data_and_limits_with_which_a_device_fails_are_its_own_secret(tmp_path: Path) -> None:
    configs = devices(tmp_path, **{"max-steps": 1})
    (tmp_path / "1.csv").write_text("a,b,ill\n" + "1e38,1e38,y\n-1e38,1e38,n\n" * 20)
    directory = run_in_process(tmp_path / "run", TABLES, node_configs=configs)
    told = rows(directory, 1)
    assert [row["rejected"] for row in told.values()] == [None] * 4
    assert summary(directory)["faults"] == {}
    for number in range(4):
        assert len(FileLedger(tmp_path / f"ledger-{number}.clients").entries()) == 1


def test_a_server_may_be_stricter_than_a_device(tmp_path: Path) -> None:
    config = devices(tmp_path, **{"honest-share": 0.8})[2]
    open_run(InProcessGrid(f"{TABLES} privacy.honest_share=0.6", node_configs=[config]).contexts[100])


def test_a_device_with_limits_takes_no_run_with_a_trusted_server(tmp_path: Path) -> None:
    config = devices(tmp_path, **{"peers": None, "min-cohort": None, "max-epsilon": 3})[2]
    grid = InProcessGrid(TABLES.replace("secaggplus", "none"), node_configs=[config])
    with pytest.raises(ConfigError, match="asks for privacy"):
        open_run(grid.contexts[100])


def test_a_device_asks_for_as_many_survivors_as_the_noise_is_planned_for(tmp_path: Path) -> None:
    config = devices(tmp_path)[0]
    run = open_run(InProcessGrid(TABLES, node_configs=[config]).contexts[100])
    assert run.half.least.min_cohort == 4  # type: ignore[attr-defined]
    loose = f"{TABLES} privacy.tolerated_dropouts=0.5"
    run = open_run(InProcessGrid(loose, node_configs=[config]).contexts[100])
    assert run.half.least.min_cohort == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("share", ["0", "1.5", "much"])
def test_an_honest_share_that_is_none_is_refused(tmp_path: Path, share: str) -> None:
    config = devices(tmp_path, **{"honest-share": share})[2]
    with pytest.raises(FederationError, match=r"honest-share|takes no part|clients can take part"):
        run_in_process(tmp_path / "run", f"{TABLES} federation.min_clients=2", node_configs=[config])


def test_cohorts_other_than_planned_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"privacy.population, federation.fraction_train: noise is planned for sums over"
    ):
        run_in_process(tmp_path / "run", f"{DP} privacy.population=60", 6)


@pytest.mark.parametrize("protocol", ["helper", "bfv", "paillier"])
def test_a_protocol_that_adds_no_noise_is_refused_by_name(protocol: str) -> None:
    """Its sums would be accounted for and hold none."""
    config = compose(DP.replace("secaggplus", protocol).split())
    with pytest.raises(ConfigError, match=r"secure_aggregation\._target_=.*need noise of the clients' own"):
        check_config(config)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("secure_aggregation.neighbours=4", "secure_aggregation.neighbours=4: under privacy=client_dp"),
        ("privacy.honest_share=0.6", "privacy.honest_share=0.6: of a cohort of 6 2 may collude, and by"),
        ("privacy.honest_share=0.3", "privacy.honest_share=0.3"),
        ("secure_aggregation.threshold=3", "privacy.honest_share=0.9: of a cohort of 6 0 may collude"),
    ],
)
def test_colluders_that_could_unmask_a_client_are_refused(more: str, why: str) -> None:
    config = f"{DP} privacy.tolerated_dropouts=0"
    check_config(compose(config.split()))
    with pytest.raises(ConfigError, match=re.escape(why)):
        check_config(compose(f"{config} {more}".split()))


def test_a_device_asks_the_same_of_the_cohort_that_it_is_shown(tmp_path: Path) -> None:
    config = devices(tmp_path)[0]
    for more in ("secure_aggregation.neighbours=2", "privacy.honest_share=0.5"):
        with pytest.raises(ConfigError, match=re.escape(more)):
            open_run(InProcessGrid(f"{TABLES} {more}", node_configs=[config]).contexts[100])
    run = open_run(InProcessGrid(TABLES, node_configs=[config]).contexts[100])
    assert run.half.least.honest_share == 0.9  # type: ignore[attr-defined]
    fewer = LeastSum(3, honest_share=0.5)
    with pytest.raises(ProtocolError, match=r"wrong cohort: privacy\.honest_share=0\.5: of a cohort of 9 4 may"):
        play(9, Settings(noised=True), least=fewer)
    play(9, Settings(noised=True), least=LeastSum(3, honest_share=0.8))


def test_its_settings_are_those_that_every_client_has_agreed_on() -> None:
    """Another honest share, clipping norm or population is another config, which is in the cohort's digest."""
    from fedapp.config.same_maths import maths_sha256

    digests = {
        maths_sha256(compose(f"{DP} {more}".split()))
        for more in ("", "privacy.honest_share=0.5", "privacy.clipping_norm=2", "privacy.population=7")
    }
    assert len(digests) == 4
    assert json.dumps(sorted(digests))
