"""A server that asks for anything, in any order and as often as it likes, of a device with all its operator's limits.

What counts is not what the ledger says but what was done: every noisy step that really ran, whatever came of it, is
accounted for by Opacus's own accountants, and their epsilon must not exceed max-epsilon.
"""

import json
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from flwr.app import Context, RecordDict
from in_process import make_context
from opacus.accountants import PRVAccountant, RDPAccountant
from table_form import FORM

from fedapp.client.handlers import handle, open_run
from fedapp.privacy.dp_training import PrivateTraining
from fedapp.privacy.limits import MAX_EPSILON
from fedapp.wire.instruction import Instruction, pack_instruction, with_stage
from fedapp.wire.model import GlobalModel

COUNT = 60
TABLE = (
    f"{FORM} privacy=dp_sgd data=csv data.label=ill data.numeric=[a,b]"
    " data.categorical={} data.classes=[y,n] data.scaling=none"
    " model=logistic_regression"
)
CHOICES: dict[str, tuple[object, ...]] = {
    "privacy.noise_multiplier": (0, 0.2, 0.7, 1.0, 4.0, 1e4),
    "privacy.target_epsilon": (0.5, 3.0, 8.0, 1e6, "null"),
    "privacy.sample_rate": (0.05, 0.5, 1.0),
    "privacy.delta": ("null", 1e-9, 1e-3, 0.1),
    "privacy.accountant": ("rdp", "rdp", "rdp", "prv"),
    "privacy.round_counts_to": (1, 1000),
    "privacy.noise_source": ("os_entropy", "os_entropy", "os_entropy", "seeded_for_tests"),
    "privacy.grad_sample_mode": ("auto", "ew", "ghost"),
    "train.local_epochs": (1, 3, 20),
    "federation.num_rounds": (1, 50),
    "optimizer.lr": (0.1, 1e6),
}


def hostile_overrides(dice: random.Random) -> str:
    chosen = [(key, dice.choice(values)) for key, values in CHOICES.items() if dice.random() < 0.5]
    words = [TABLE, "privacy.noise_multiplier=2 privacy.accountant=rdp", *(f"{key}={value}" for key, value in chosen)]
    return " ".join(words) if dice.random() < 0.9 else " ".join(words).replace("privacy=dp_sgd", "privacy=none")


def hostile_content(dice: random.Random) -> RecordDict:
    """A model of its choice: sound, scaled out of all proportion, or not finite."""
    size = dice.choice([0.0, 1.0, 1e19, float("nan")])
    state = {"weight": torch.randn(2, 2) * size, "bias": torch.zeros(2)}
    clients = dice.choice([(0,), (0,), (0, 0), (0, 1, 2), (7,)])
    asked = Instruction(
        server_round=dice.choice([1, 1, 2, 10**6]),
        clients=clients,
        weights=tuple(dice.choice([0.0, 1.0, 1e9]) for _ in clients),
        lr_factor=dice.choice([0.0, 1.0, 1e3]),
        each=dice.random() < 0.5,
        run=dice.choice(["", "0123456789abcdef", "fedcba9876543210"]),
    )
    return with_stage(pack_instruction(asked, GlobalModel(state)), dice.choice(["train", "train", "train", "keys"]))


@pytest.fixture
def performed() -> Iterator[list[tuple[float, float, int]]]:
    """Of every training that began, noise multiplier, sample rate and steps; a trial on made-up examples is none."""
    found = []
    real = PrivateTraining.__call__

    def watched(training: PrivateTraining, model: Any, examples: Any, **options: Any) -> Any:
        if len(examples) == COUNT:
            found.append((training.noise_multiplier, training.sample_rate, training.steps))
        return real(training, model, examples, **options)

    with patch.object(PrivateTraining, "__call__", watched):
        yield found


def device(folder: Path, **more: object) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    lines = "\n".join(f"{i % 7},{i % 5},{'yn'[i % 7 > 3]}" for i in range(COUNT))
    (folder / "table.csv").write_text(f"a,b,ill\n{lines}\n")
    config = {"data-path": str(folder / "table.csv"), "partition-id": 0, "ledger-path": str(folder / "ledger")}
    return {**config, "keep-path": str(folder / "keep"), "max-steps": 40, **more}


def least_epsilon(history: list[tuple[float, float, int]]) -> float:
    """By whichever of Opacus's two accountants finds less: both are upper bounds of the same loss."""
    found = []
    for accountant in (RDPAccountant(), PRVAccountant()):
        accountant.history = history
        with suppress(ValueError, RuntimeError):
            found.append(accountant.get_epsilon(delta=min(1e-5, 0.5 / COUNT)))
    return min(found)


def sound_content(context: Context, server_round: int) -> RecordDict:
    model = open_run(context).site.parts.model
    state = {key: value.clone() for key, value in model.state_dict().items()}
    return with_stage(pack_instruction(Instruction(server_round, (0,), (1.0,)), GlobalModel(state)), "train")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("seed", "most"), [(0, 1.0), (1, MAX_EPSILON)])
def test_no_server_spends_more_than_max_epsilon(
    tmp_path: Path, performed: list[tuple[float, float, int]], seed: int, most: float
) -> None:
    dice, config = random.Random(seed), device(tmp_path / "site", **{"max-epsilon": most})
    torch.manual_seed(seed)
    for step in range(8):
        context = make_context(100, config, hostile_overrides(dice))
        kind = dice.choice(["query", "train", "train", "train", "train", "evaluate"])
        with suppress(Exception):
            if dice.random() < 0.6:  # of a model that fits, with which training really happens
                content = sound_content(context, dice.choice([1, step + 1]))
            else:
                content = hostile_content(dice)
            handle(kind, content, context)
    for sigma in (1.0, 6.0):  # and with patience: until it declines
        context = make_context(100, config, f"{TABLE} privacy.noise_multiplier={sigma} privacy.accountant=rdp")
        for step in range(12):
            reply = handle("train", sound_content(context, step + 1), context)
            if reply["config"]["declined"] == [True]:
                break
    written = [json.loads(line) for line in (tmp_path / "site" / "ledger").read_text().splitlines()]
    entries = [(line["noise_multiplier"], line["sample_rate"], line["steps"]) for line in written]
    assert performed
    assert all(entries.count(done) >= performed.count(done) for done in performed)  # each was paid for
    assert all(sigma > 0 and steps <= 40 for sigma, _, steps in performed)
    assert least_epsilon(performed) <= least_epsilon(entries) <= most * (1 + 1e-6)


def test_the_independent_accountant_would_find_out(tmp_path: Path, performed: list[tuple[float, float, int]]) -> None:
    """The same server against a device that forgets its ledger: what was done is more than was allowed."""
    config = device(tmp_path / "site", **{"max-epsilon": 1.0})
    context = make_context(100, config, f"{TABLE} privacy.noise_multiplier=3 privacy.accountant=rdp")
    for step in range(12):
        for file in (tmp_path / "site").glob("ledger*"):
            file.unlink()
        (tmp_path / "site" / "keep" / "ledger.head").unlink(missing_ok=True)
        handle("train", sound_content(context, step + 1), context)
    assert least_epsilon(performed) > 1.0
