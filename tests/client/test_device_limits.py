"""What a device's operator allows a run to take: steps, a model's size, and what is stored."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import RecordDict
from in_process import InProcessGrid, make_context
from own_keys import node_configs, write_keys
from table_form import FORM

from fedapp.aggregation.helper.client import HelperClient
from fedapp.aggregation.helper.helper_site import HelperSite
from fedapp.aggregation.helper.run_store import KeptModel, RunStore
from fedapp.client.build import build_site
from fedapp.client.handlers import handle, open_run
from fedapp.client.helper_handlers import open_helper
from fedapp.client.run_folders import RUNS_KEPT, RunFolders
from fedapp.client.site_preflight import preflight_of
from fedapp.client.storage import storage_folder
from fedapp.common.cores import allowed_cores
from fedapp.common.errors import ConfigError, FederationError, NodeConfigError
from fedapp.config import compose
from fedapp.data.source import Examples
from fedapp.deploy.supernode import parser
from fedapp.learning.build import build_parts, bytes_of, model_bytes
from fedapp.learning.training import LocalTraining
from fedapp.models.shared_state import shared_state
from fedapp.privacy.limits import own_limits
from fedapp.server.exchange import Exchange
from fedapp.server.population.joining import AdmissionRules
from fedapp.server.population.preflight import preflight
from fedapp.wire.instruction import Instruction, pack_instruction, with_stage
from fedapp.wire.model import GlobalModel
from fedapp.wire.reply import unpack_reply

ROWS = "".join(f"{30 + i},{'fm'[i % 2]},{['no', 'yes'][i % 3 == 0]}\n" for i in range(40))
TASK = "data=csv data.label=ill data.numeric=[age] data.categorical={sex:[f,m]} data.classes=[no,yes] data.scaling=none"
PRIVATE = f"{FORM} privacy=dp_sgd train.val_fraction=0 federation.final_evaluation=false privacy.noise_multiplier=1e4"
MB = 1 << 20


@pytest.fixture
def device(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "data.csv").write_text("age,sex,ill\n" + ROWS)
    return {"data-path": str(tmp_path / "data.csv"), "partition-id": 0, "keep-path": str(tmp_path / "keep")}


REFUSED = [
    # Each time just within, then just beyond what the operator allows.
    ({"max-steps": 10}, PRIVATE, "privacy.sample_rate=0.1", "privacy.sample_rate=0.09"),
    ({"max-steps": 10}, PRIVATE, "train.local_epochs=1", "train.local_epochs=2"),
    ({"max-steps": 99}, PRIVATE, "privacy.sample_rate=0.1", "privacy.sample_rate=1e-9"),
    # 36 training examples.
    ({"max-steps": 9}, "", "train.batch_size=4", "train.batch_size=3"),
    ({"max-steps": 4}, "", "train.local_epochs=2", "train.local_epochs=3"),
    ({"max-model-mb": 1}, "model=mlp", "model.hidden=[64]", "model.hidden=[999999,99999]"),
    ({"max-disk-mb": 2}, "model=mlp", "federation.deliver=false", "federation.deliver=true model.hidden=[600,600]"),
    ({"max-disk-mb": 2}, "model=mlp model.hidden=[300,300]", "downlink=whole", "downlink=differences"),
    ({"max-disk-mb": 1}, "model=mlp federation.personal=head", "run.checkpoint_every=1", "run.checkpoint_every=9999"),
]


@pytest.mark.parametrize(("limits", "line", "within", "beyond"), REFUSED)
def test_a_run_that_takes_more_is_refused_in_the_preflight(
    device: dict[str, Any], tmp_path: Path, limits: dict[str, Any], line: str, within: str, beyond: str
) -> None:
    node = device | limits | ({"ledger-path": str(tmp_path / "ledger")} if PRIVATE in line else {})
    rules = AdmissionRules(1, wait_timeout=1, reply_timeout=60)

    def ask(more: str) -> dict[int, int]:
        model = "" if "model=" in line else "model=logistic_regression"
        overrides = " ".join([TASK, line, model, more])
        return dict(preflight(Exchange(InProcessGrid(overrides, node_configs=[node])), rules).nodes)

    assert ask(within) == {0: 100}
    with pytest.raises(FederationError, match=rf"operator allows (fewer|less) \(node-config {next(iter(limits))}\)"):
        ask(beyond)


@pytest.mark.parametrize("line", [f"{TASK} model=mlp", f"{TASK} model=logistic_regression", "model=cnn"])
def test_a_models_size_is_known_before_it_is_there(line: str) -> None:
    config = compose(line.split())
    assert model_bytes(config) == bytes_of(build_parts(config).whole)


def test_a_server_that_skips_the_preflight_gets_no_further(device: dict[str, Any]) -> None:
    limits = own_limits(device | {"max-steps": 3})
    config = compose([*TASK.split(), "model=logistic_regression", "train.batch_size=1"])
    site = build_site(config, Path(device["data-path"]), limits)
    with pytest.raises(ConfigError, match="36 steps a round"):
        site.protection.training(site.model, site.shards.of(0).train, seed=(0,))


def test_no_message_multiplies_the_work_of_a_round(device: dict[str, Any]) -> None:
    """A limit of 9 steps is one of the round, however the server words and repeats its messages."""
    line = f"{TASK} model=logistic_regression train.batch_size=4"
    context = make_context(7, device | {"max-steps": 9}, line)
    model = GlobalModel({name: value.clone() for name, value in shared_state(open_run(context).site.model).items()})

    def steps(clients: tuple[int, ...], server_round: int, kind: str = "train", run: str = "0" * 16) -> int:
        weights = (1 / max(len(clients), 1),) * len(clients)
        content = pack_instruction(Instruction(server_round, clients, weights, run=run), model)
        reply = unpack_reply(handle(kind, with_stage(content, "train"), context))
        assert [report.rejected for report in reply.reports] == [None]
        return sum(report.steps for report in reply.reports)

    for clients in ((0,) * 200, (0, 0), (0, 1), (1,)):
        for kind in ("train", "evaluate"):
            with pytest.raises(RuntimeError, match="FederationError"):
                steps(clients, 1, kind)
    assert steps((0,), 1) == 9
    for again in (1, 0):
        with pytest.raises(RuntimeError, match="FederationError"):
            steps((0,), again)
    assert steps((0,), 1, "evaluate") == 0
    assert steps((0,), 2) == 9
    assert steps((0,), 1, run="1" * 16) == 9
    context.node_config.pop("max-steps")
    assert steps((0,), 1, run="1" * 16) == 9  # who sets no limit wants none


def test_fine_tuning_is_a_training_like_any_other(device: dict[str, Any]) -> None:
    """A device with a limit trains once for a round, however often the final evaluation is asked for."""
    line = f"{TASK} model=logistic_regression train.batch_size=4 federation.personal=finetune"
    context = make_context(1, device | {"max-steps": 45}, f"{line} federation.personal.epochs=5")
    model = GlobalModel(shared_state(build_parts(compose(line.split())).model))

    def kept(server_round: int, run: str = "0" * 16) -> list[bytes]:
        content = pack_instruction(Instruction(server_round, (0,), (1.0,), run=run), model)
        handle("evaluate", content, context)
        return [path.read_bytes() for path in sorted(Path(device["keep-path"]).rglob("round-*.safetensors"))]

    first = kept(3)
    assert len(first) == 1
    assert kept(3) == first  # is there already
    with pytest.raises(RuntimeError, match="FederationError"):
        kept(2)
    assert len(kept(4)) == 2
    many = make_context(1, device | {"max-steps": 44}, f"{line} federation.personal.epochs=5")
    report = preflight_of(open_run(many).site, (0,))
    assert "fewer" in report.faults[0]
    ditto = make_context(1, device | {"max-steps": 17}, f"{line.replace('finetune', 'ditto')}")
    assert "fewer" in preflight_of(open_run(ditto).site, (0,)).faults[0]  # 9 steps each


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 9])
def test_steps_are_counted_as_they_are_done(count: int) -> None:
    model, examples = torch.nn.Linear(1, 1), Examples(torch.ones(count, 1), torch.ones(count, 1))

    def trained(most: int | None) -> int:
        loss, optimizer = torch.nn.functional.mse_loss, torch.optim.SGD
        return LocalTraining(loss, optimizer, 3, 4, max_steps=most)(model, examples, seed=(0,)).steps

    done = trained(None)
    assert trained(done) == done
    with pytest.raises(ConfigError, match=f"{done} steps"):
        trained(done - 1)


@pytest.mark.parametrize("key", ["max-steps", "max-model-mb", "max-disk-mb"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "much", float("inf")])
def test_other_limits_are_refused(device: dict[str, Any], key: str, value: Any) -> None:
    read: Any = storage_folder if key == "max-disk-mb" else own_limits
    with pytest.raises(NodeConfigError, match=key):
        read(device | {key: value})


def test_the_supernodes_script_has_an_option_for_each() -> None:
    given = parser().parse_args(["--folder", "x", "--max-steps", "5", "--max-model-mb", "6", "--max-disk-mb", "7"])
    assert (given.max_steps, given.max_model_mb, given.max_disk_mb) == (5, 6, 7)


# --- whose results and heads go -----------------------------------------------------------------------------------


def store(folders: RunFolders, kind: str, run: str, *, trained: bool, size: int = 10, age: int = 0) -> None:
    if trained:
        folders.note_training(run)
    target = folders.make_room(kind, run, size)
    target.mkdir(parents=True, exist_ok=True)
    (target / "x").write_bytes(bytes(size))
    os.utime(target, (10**9 - age, 10**9 - age))


def there(folders: RunFolders, kind: str) -> set[str]:
    return {path.name for path in (folders.path / kind).glob("*")}


@pytest.mark.parametrize("kind", ["models", "heads"])
@pytest.mark.parametrize("invented", [1, 4, 50])
def test_invented_names_evict_nothing_that_was_trained(tmp_path: Path, kind: str, invented: int) -> None:
    folders = RunFolders(tmp_path)
    for i in range(RUNS_KEPT):
        store(folders, kind, f"real-{i}", trained=True, age=100 - i)
    for i in range(invented):
        store(folders, kind, f"invented-{i}", trained=False)
    found = there(folders, kind)
    assert {f"real-{i}" for i in range(RUNS_KEPT)} <= found
    assert len(found) <= RUNS_KEPT + 1


def test_invented_names_go_first_and_then_the_oldest(tmp_path: Path) -> None:
    folders = RunFolders(tmp_path)
    for i in range(RUNS_KEPT - 1):
        store(folders, "models", f"real-{i}", trained=True, age=100 - i)
    store(folders, "models", "invented", trained=False)
    store(folders, "models", "real-3", trained=True, age=1)
    assert there(folders, "models") == {f"real-{i}" for i in range(4)}
    store(folders, "models", "real-4", trained=True)
    assert there(folders, "models") == {f"real-{i}" for i in range(1, 5)}


def test_of_the_disk_no_more_is_filled_than_allowed(tmp_path: Path) -> None:
    folders = RunFolders(tmp_path, max_bytes=100)
    for i in range(3):
        store(folders, "models", f"real-{i}", trained=True, size=30, age=100 - i)
    with pytest.raises(ConfigError, match="max-disk-mb: leaves no room"):
        folders.make_room("models", "invented", 20)
    assert len(there(folders, "models")) == 3
    store(folders, "heads", "real-9", trained=True, size=60)
    assert there(folders, "models") == {"real-2"}


@pytest.mark.parametrize("kind", ["models", "heads", "steps"])
def test_what_else_a_run_stores_counts_as_well(tmp_path: Path, kind: str) -> None:
    folders = RunFolders(tmp_path, max_bytes=100)
    store(folders, "models", "real-0", trained=True, size=30, age=10)
    store(folders, "received", "real-1", trained=True, size=40)
    store(folders, kind, "real-1", trained=True, size=45)
    assert there(folders, "models") - {"real-1"} == set()
    assert sum(path.stat().st_size for path in tmp_path.rglob("x")) == 85
    store(folders, "received", "real-1", trained=True, size=55)  # in the place of the 40
    with pytest.raises(ConfigError, match="max-disk-mb: leaves no room"):
        folders.make_room("received", "real-1", 56)
    assert there(folders, kind) == there(folders, "received") == {"real-1"}  # its own do not go


@pytest.mark.parametrize(
    ("more", "clients", "trains"), [("", (), False), (PRIVATE, (0,), False), ("", (0,), True), (PRIVATE, (), False)]
)
def test_a_message_that_trains_nothing_gives_a_run_no_right_to_the_disk(
    device: dict[str, Any], tmp_path: Path, more: str, clients: tuple[int, ...], trains: bool
) -> None:
    """It would let a server's invented runs evict those that have cost it something."""
    node = device | ({"ledger-path": str(tmp_path / "ledger"), "max-epsilon": 1e-9} if more else {})
    line = f"{TASK} {more} model=logistic_regression downlink=differences"
    context = make_context(7, node, line)
    model = GlobalModel(shared_state(build_parts(compose(line.split())).model))
    content = pack_instruction(Instruction(1, clients, (1.0,) * len(clients), run="a" * 16), model)
    reply = unpack_reply(handle("train", with_stage(content, "train"), context))
    assert [report.declined for report in reply.reports] == [not trains] * len(clients)
    assert there(RunFolders(tmp_path / "keep"), "received") == {"a" * 16}
    assert there(RunFolders(tmp_path / "keep"), "trained") == ({"a" * 16} if trains else set())


def test_features_and_runs_share_what_is_allowed(device: dict[str, Any]) -> None:
    for most in (1, 3, 5000):
        folder = storage_folder(device | {"max-disk-mb": most})
        assert folder is not None
        assert folder.run_bytes is not None
        assert folder.run_bytes + folder.feature_bytes == most * MB
        assert folder.feature_bytes <= min(1024 * MB, most * MB // 2)


def test_a_server_gets_no_more_threads_than_a_device_has_cores(device: dict[str, Any]) -> None:
    before = torch.get_num_threads()
    try:
        open_run(make_context(7, device, f"{TASK} model=logistic_regression run.threads_per_client=4096"))
        assert torch.get_num_threads() <= allowed_cores()
    finally:
        torch.set_num_threads(before)


# --- a helper that is pinned ---------------------------------------------------------------------------------------


@pytest.fixture
def pinned(device: dict[str, Any], tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A device that pins a helper, and that helper."""
    write_keys(tmp_path / "keys", 3)
    client, _, helper = node_configs(tmp_path / "keys", 3)
    own = {"helper": str(tmp_path / "keys" / "keys" / "2.pub"), "signing-key": client["signing-key"]}
    kept = {"role": "helper", "keep-path": str(tmp_path / "kept")}
    return device | own, {"partition-id": 2, **helper, **kept}


@pytest.mark.parametrize("more", [{}, {"min-cohort": 3}, {"peers": "keys"}], ids=["helper", "min-cohort", "peers too"])
@pytest.mark.parametrize("protocol", ["secaggplus", "none"])
def test_who_pins_a_helper_is_in_no_sum_without_one(
    pinned: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path, more: dict[str, Any], protocol: str
) -> None:
    """Else a server would begin a run in which it can invent the others, or take one client out of a helper's sum."""
    own = pinned[0] | more
    if "peers" in more:
        own["peers"] = str(tmp_path / "keys" / "keys")
    line = f"{TASK} model=logistic_regression secure_aggregation="
    open_run(make_context(7, own, f"{line}helper"))
    with pytest.raises(ConfigError, match=r"secure_aggregation: this SuperNode's operator (has pinned|asks for)"):
        open_run(make_context(7, own, f"{line}{protocol}"))


@pytest.mark.parametrize("limit", ["max-model-mb", "max-disk-mb"])
def test_a_helper_takes_no_larger_model_than_its_operator_allows(
    pinned: tuple[dict[str, Any], dict[str, Any]], limit: str
) -> None:
    through = "secure_aggregation=helper secure_aggregation.sum_to=clients federation.deliver=true"
    helper, line = pinned[1] | {limit: 1}, f"{TASK} {through} model=mlp model.hidden="
    open_helper(make_context(8, helper, f"{line}[64]"))
    with pytest.raises(ConfigError, match=rf"operator allows.*{limit}"):
        open_helper(make_context(8, helper, f"{line}[999999,99999]" if limit == "max-model-mb" else f"{line}[500,300]"))


def test_a_helper_keeps_the_runs_that_were_summed_last(tmp_path: Path) -> None:
    kept = KeptModel(bytes(32), 1, "m" * 64, {"sealed-model": torch.zeros(1000, dtype=torch.uint8)})
    runs = [f"{number:016x}" for number in range(12)]

    def left(store: RunStore) -> list[str]:
        for number, run in enumerate(runs):
            store.save(run, kept, RecordDict())
            os.utime(store._file(run), (number, number))
        return [run for run in runs if store.load(run, RecordDict()) is not None]

    assert left(RunStore(tmp_path / "all")) == runs[-8:]
    assert left(RunStore(tmp_path / "few", 6000)) == runs[-3:]


@pytest.mark.parametrize("path", ["", "data.test_path=/server/test.csv", "data.path=/server/all.csv"])
def test_helper_and_clients_have_the_same_digest_of_a_config(
    pinned: tuple[dict[str, Any], dict[str, Any]], path: str
) -> None:
    """Also of one that names files of the server's, which neither of them opens."""
    line = f"{TASK} {path} model=logistic_regression secure_aggregation=helper"
    client, helper = pinned
    run, site = open_run(make_context(7, client, line)), open_helper(make_context(8, helper, line))
    assert isinstance(run.half, HelperClient)
    assert isinstance(site, HelperSite)
    assert run.half.config_sha256 == site.config_sha256
