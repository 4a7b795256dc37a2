"""Personal heads: what stays with each client, for whom it is better, and where it lies."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from every_task import HEAD as ONLY_HEAD
from flwr.app import Message
from in_process import InProcessGrid, run_in_process, run_on
from safetensors.torch import load_file

from fedapp.client.heads import FolderHead
from fedapp.common.errors import ConfigError, DataError
from fedapp.config import compose
from fedapp.learning.build import build_parts
from fedapp.learning.build_shards import build_shards
from fedapp.models.shared_state import load_tensors, personal_state, shared_state
from fedapp.server.check_config import check_config

pytestmark = pytest.mark.slow

HEAD = {"net.5.weight", "net.5.bias"}
RUN = "model=mlp partition=pathological federation.num_clients=6 federation.num_rounds=4 federation.fraction_train=1"
PERSONAL = f"{RUN} federation.personal=head"


def summary(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "summary.json").read_text()))


def names(message: Message) -> set[str]:
    return {name for record in message.content.array_records.values() for name in record}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, InProcessGrid]:
    directory = tmp_path_factory.mktemp("personal") / "run"
    overrides = f"{PERSONAL} run.output_dir={directory}"
    grid = InProcessGrid(overrides, 2)
    return run_on(grid, directory, overrides), grid


def test_no_head_is_ever_sent(run: tuple[Path, InProcessGrid]) -> None:
    _, grid = run
    expected = set(build_parts(compose(PERSONAL.split())).whole.state_dict()) - HEAD
    with_model = [m for m in [*grid.sent, *grid.received] if m.metadata.message_type in ("train", "evaluate")]
    sent = [names(message) for message in with_model if names(message)]
    assert len(sent) > 8
    assert all(found == expected for found in sent)


def test_each_client_has_its_own(run: tuple[Path, InProcessGrid]) -> None:
    heads = [load_file(run[0] / "heads" / f"client-{client}" / "round-00004.safetensors") for client in range(6)]
    assert all(head.keys() == HEAD for head in heads)
    different = {tuple(head["net.5.weight"].flatten().tolist()) for head in heads}
    assert len(different) == 6


def test_it_pays_where_clients_differ(run: tuple[Path, InProcessGrid], tmp_path: Path) -> None:
    alike = summary(run_in_process(tmp_path / "run", RUN))
    assert summary(run[0])["final_val_accuracy_mean"] > alike["final_val_accuracy_mean"] + 0.1


def test_the_server_judges_no_model_that_is_not_whole(run: tuple[Path, InProcessGrid]) -> None:
    found = summary(run[0])
    assert found["test_accuracy"] is None
    assert found["status"] == "finished"
    assert found["best_loss"] is not None  # of the clients' validation splits


def test_clients_judge_the_model_with_their_heads(run: tuple[Path, InProcessGrid]) -> None:
    """The final figures are those of the saved body under each client's saved head."""
    directory, _ = run
    overrides = f"{PERSONAL} run.output_dir={directory}"
    parts = build_parts(compose(overrides.split()))
    parts.whole.load_state_dict(load_file(directory / "model.safetensors"))
    rows = [json.loads(line) for line in (directory / "clients.jsonl").read_text().splitlines()]
    final = {row["client"]: row["val_accuracy"] for row in rows if row.get("phase") == "final"}
    shards = build_shards(compose(overrides.split()), parts)
    for client in range(6):
        head = load_file(directory / "heads" / f"client-{client}" / "round-00004.safetensors")
        load_tensors(personal_state(parts.model), head, "the client's own head")
        judged = parts.task.evaluate(parts.model, shards.of(client).validation)
        assert judged is not None
        assert final[client] == pytest.approx(judged.metrics["accuracy"])


@pytest.mark.parametrize("nodes", [1, 3])
def test_the_same_for_any_number_of_supernodes(run: tuple[Path, InProcessGrid], tmp_path: Path, nodes: int) -> None:
    other = run_in_process(tmp_path / "run", f"{PERSONAL} run.output_dir={tmp_path}/run", nodes)
    assert summary(other)["model_sha256"] == summary(run[0])["model_sha256"]


def test_without_a_known_directory_heads_last_as_long_as_the_run(
    run: tuple[Path, InProcessGrid], tmp_path: Path
) -> None:
    other = run_in_process(tmp_path / "run", PERSONAL)
    assert not (other / "heads").exists()
    assert summary(other)["model_sha256"] == summary(run[0])["model_sha256"]
    assert summary(other)["final_val_accuracy_mean"] == summary(run[0])["final_val_accuracy_mean"]


def test_under_differential_privacy(tmp_path: Path) -> None:
    overrides = f"{PERSONAL} privacy=dp_sgd privacy.accountant=rdp run.output_dir={tmp_path}/run"
    grid = InProcessGrid(overrides, 2)
    directory = run_on(grid, tmp_path / "run", overrides)
    assert 0 < summary(directory)["epsilon_max"] <= 8
    assert not any(HEAD & names(message) for message in [*grid.sent, *grid.received])


@pytest.mark.parametrize("overrides", ["model=logistic_regression", ONLY_HEAD])
def test_a_model_that_is_nothing_but_head_is_refused(overrides: str) -> None:
    with pytest.raises(ConfigError, match="nothing is left to federate"):
        check_config(compose(f"{overrides} federation.personal=head".split()))


def test_files_of_heads(tmp_path: Path) -> None:
    head = FolderHead(tmp_path / "heads", rounds_back=2)
    for number in (1, 3, 4, 6):
        head.keep(number, {"weight": torch.full((1,), float(number))})
    files = sorted(path.name for path in (tmp_path / "heads").iterdir())
    assert files == [f"round-{number:05d}.safetensors" for number in (3, 4, 6)]  # 3: the newest before the last two
    found = head.after(5)
    assert found is not None
    assert found["weight"].item() == 4
    assert head.after(2) is None
    (tmp_path / "heads" / files[-1]).write_bytes(b"torn")
    with pytest.raises(DataError, match=r"round-00006.safetensors: is damaged"):
        head.after(6)
    head.keep(5, {"weight": torch.full((1,), 5.0)})  # round 6 is being done over
    assert not (tmp_path / "heads" / files[-1]).exists()
    assert (tmp_path / "heads" / files[0]).stat().st_mode & 0o777 == 0o600


def test_every_name_is_shared_or_personal() -> None:
    model = build_parts(compose(PERSONAL.split())).model
    assert personal_state(model).keys() == HEAD
    assert personal_state(model).keys() | shared_state(model).keys() == model.state_dict().keys()
    with pytest.raises(ValueError, match="own head is another one"):
        load_tensors(personal_state(model), {"net.5.weight": torch.zeros(10, 64)}, "the client's own head")
