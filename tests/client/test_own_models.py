"""Models of clients' own beside the global one: fine-tuned at the end, or by Ditto in every round; and own norms."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import run_in_process
from safetensors.torch import load_file
from torch import Tensor, nn

from fedapp.client.own_models import OwnModels
from fedapp.client.storage import kept_states
from fedapp.common.errors import ConfigError
from fedapp.config import compose
from fedapp.data.shards import ClientData
from fedapp.data.source import Examples
from fedapp.learning.build import build_parts
from fedapp.learning.build_shards import build_shards
from fedapp.learning.training import LocalTraining
from fedapp.models.own_model import Ditto, FineTuned
from fedapp.models.personal import OwnModel
from fedapp.models.shared_state import load_shared
from fedapp.server.check_config import check_config
from fedapp.wire.instruction import Instruction
from fedapp.wire.reply import ClientReport, Reply, pack_reply, unpack_reply

RUN = (
    "data=breast_cancer model=mlp model.hidden=[8] partition=pathological partition.num_classes_per_partition=1"
    " federation.num_clients=4 federation.num_rounds=2 federation.fraction_train=1 train.val_fraction=0.2"
)


def summary(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "summary.json").read_text()))


# --- closed forms on a line: loss (w x - y)^2 / 2, one example, one step of size 0.1 a training -----------------------


class Kept:
    """What a client keeps, by round."""

    def __init__(self) -> None:
        self.states: dict[int, dict[str, Tensor]] = {}

    def after(self, server_round: int) -> dict[str, Tensor] | None:
        rounds = [number for number in self.states if number <= server_round]
        return self.states[max(rounds)] if rounds else None

    def of(self, server_round: int) -> dict[str, Tensor] | None:
        return self.states.get(server_round)

    def keep(self, server_round: int, state: dict[str, Tensor]) -> None:
        self.states[server_round] = {name: value.clone() for name, value in state.items()}


class Line:
    """A site with one client, whose one example is x = 1 with target 2: the model is w x."""

    def __init__(self) -> None:
        self.model, self.seed = nn.Linear(1, 1, bias=False), 0
        one = Examples(torch.ones(1, 1), torch.tensor([2.0]))
        self._data = ClientData(one, one.span(0, 0))

    def data(self, client: int) -> ClientData:
        return self._data

    @property
    def w(self) -> float:
        return float(self.model.weight.detach())


def own(rule: OwnModel) -> OwnModels:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return ((outputs.squeeze(1) - targets) ** 2).mean() / 2

    return OwnModels(rule, LocalTraining(loss, lambda p: torch.optim.SGD(p, lr=0.1), 1, 1))


def told(server_round: int) -> Instruction:
    return Instruction(server_round, (0,), (1.0,))


def state(w: float) -> dict[str, Tensor]:
    return {"weight": torch.tensor([[w]])}


def test_fine_tuning_is_training_from_the_global_model() -> None:
    site, kept = Line(), Kept()
    own(FineTuned(epochs=2).own).finish(site, 0, told(7), state(1.0), kept)
    assert site.w == pytest.approx(1.19)  # 1 + 0.1 (2 - 1), then 1.1 + 0.1 (2 - 1.1)
    assert float(kept.states[7]["weight"]) == pytest.approx(1.19)


def test_fine_tuning_is_held_near_the_global_model_and_scales_its_rate() -> None:
    site = Line()
    own(FineTuned(epochs=2, mu=5.0, lr_factor=0.5).own).finish(site, 0, told(1), state(1.0), Kept())
    # lr 0.05: 1.05, then 1.05 + 0.05 (0.95 - 5 * 0.05)
    assert site.w == pytest.approx(1.085)


def test_a_repeated_final_evaluation_trains_nothing_anew() -> None:
    site, kept = Line(), Kept()
    tuned = own(FineTuned(epochs=1).own)
    tuned.finish(site, 0, told(3), state(1.0), kept)
    tuned.finish(site, 0, told(3), state(0.0), kept)
    assert site.w == pytest.approx(1.1)
    tuned.finish(site, 0, told(4), state(0.0), kept)  # of a run that has gone on
    assert site.w == pytest.approx(0.2)


def test_ditto_goes_on_from_its_own_model_held_near_the_global_one() -> None:
    site, kept = Line(), Kept()
    ditto = own(Ditto(epochs=1, mu=2.0).own)
    ditto.train_on(site, 0, told(1), state(1.0), kept)
    assert float(kept.states[1]["weight"]) == pytest.approx(1.1)  # begins as the global model, where the pull is 0
    ditto.train_on(site, 0, told(2), state(1.5), kept)
    assert float(kept.states[2]["weight"]) == pytest.approx(1.1 + 0.1 * ((2 - 1.1) + 2.0 * (1.5 - 1.1)))
    ditto.finish(site, 0, told(2), state(9.0), kept)
    assert site.w == pytest.approx(1.27)


def test_a_client_that_was_never_sampled_has_the_global_model() -> None:
    site = Line()
    own(Ditto().own).finish(site, 0, told(2), state(9.0), Kept())
    assert site.w == 9.0


# --- whole runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("personal", ["finetune", "ditto"])
def test_the_global_model_is_as_without_and_own_ones_serve_their_clients_better(personal: str, tmp_path: Path) -> None:
    """Each client has one class only: its own model learns that, which no global one can."""
    plain = summary(run_in_process(tmp_path / "plain", f"{RUN} run.output_dir={tmp_path / 'plain'}"))
    directory = tmp_path / "own"
    overrides = f"{RUN} federation.personal={personal} federation.personal.epochs=10 run.output_dir={directory}"
    found = summary(run_in_process(directory, overrides))
    assert found["model_sha256"] == plain["model_sha256"]
    assert found["final_val_accuracy"] == plain["final_val_accuracy"]
    assert found["final_own_accuracy_mean"] >= found["final_val_accuracy_mean"]
    assert found["final_own_accuracy_mean"] > 0.95
    rows = [json.loads(line) for line in (directory / "clients.jsonl").read_text().splitlines()]
    final = {row["client"]: row["own_accuracy"] for row in rows if row.get("phase") == "final"}
    parts = build_parts(compose(overrides.split()))
    shards = build_shards(compose(overrides.split()), parts)
    for client in range(4):
        load_shared(parts.model, dict(kept_states(directory, client)))
        judged = parts.task.evaluate(parts.model, shards.of(client).validation)
        assert judged is not None
        assert judged.metrics["accuracy"] == final[client]


def test_own_norms_stay_with_their_clients(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    overrides = "federation.personal=norm federation.num_clients=3 federation.num_rounds=1 federation.fraction_train=1"
    run_in_process(directory, f"{overrides} model.channels=[4,4] model.hidden=8 run.output_dir={directory}")
    heads = [load_file(directory / "heads" / f"client-{client}" / "round-00001.safetensors") for client in range(3)]
    parts = build_parts(compose([*overrides.split(), "model.channels=[4,4]", "model.hidden=8"]))
    norms = {name for name, module in parts.model.named_modules() if isinstance(module, nn.GroupNorm)}
    assert norms
    assert all({name.rpartition(".")[0] for name in head} == norms for head in heads)
    first = next(iter(heads[0]))
    assert any(not torch.equal(heads[0][name], heads[1][name]) for name in heads[0]), first


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            "federation.personal=finetune federation.final_evaluation=false",
            "federation.final_evaluation=false leaves out",
        ),
        (
            "federation.personal=finetune federation.personal.epochs=0",
            "federation.personal.epochs=0: must be at least 1",
        ),
        ("federation.personal=ditto federation.personal.mu=-1", "federation.personal.mu=-1.*: must be 0 or more"),
        ("federation.personal=norm model=mlp", "this model has no normalisation layer"),
    ],
)
def test_what_cannot_be_is_refused(overrides: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_config(compose(overrides.split()))


def test_own_metrics_travel_beside_the_global_ones() -> None:
    reports = (
        ClientReport(1, val_metrics={"auc": 0.5}, own_metrics={"auc": 0.75}),
        ClientReport(2, val_metrics={"auc": 0.25}),
    )
    found = unpack_reply(pack_reply(Reply(reports)))
    assert [report.own_metrics for report in found.reports] == [{"auc": 0.75}, {}]
    assert [report.val_metrics for report in found.reports] == [{"auc": 0.5}, {"auc": 0.25}]
