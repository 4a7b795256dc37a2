"""What a client says that it has spent is held against the server's own count, and what cannot be is marked."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Message
from in_process import run_in_process

from fedapp.privacy.accounting import Spending, epsilon
from fedapp.privacy.budget import Budget
from fedapp.privacy.server_accounts import ServerAccounts
from fedapp.wire.reply import ClientReport, PrivacySpent

COST = Spending(2.0, 0.5, 2)
ONE, TWO = (epsilon([Spending(2.0, 0.5, steps)], 1e-5, "rdp") for steps in (2, 4))
HONEST = PrivacySpent(2.0, 0.5, ONE, 1e-5)


def accounts(void: bool = False, target: float = 8.0) -> ServerAccounts:
    return ServerAccounts(Budget(COST, target, None, "rdp", 10, void=void), {0: 50, 1: 200_000})


def disputed(found: ServerAccounts, said: PrivacySpent | None, client: int = 0) -> str | None:
    spent = found.examine([ClientReport(client, steps=2, privacy=said)])[client]
    if spent.disputed is not None:
        assert math.isfinite(spent.spent.epsilon) or found.budget.void
        assert (spent.spent.noise_multiplier, spent.spent.sample_rate) == (2.0, 0.5)
    else:
        assert spent.spent == said
    return spent.disputed


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0, 0.99 * ONE, 8.1])
def test_an_epsilon_that_cannot_be_is_not_taken(value: float) -> None:
    assert disputed(accounts(), replace(HONEST, epsilon=value))


@pytest.mark.parametrize(
    "changed",
    [
        {"noise_multiplier": 3.0},
        {"noise_multiplier": math.inf},
        {"sample_rate": 0.1},
        {"delta": 0.5},
        {"delta": math.nan},
    ],
)
def test_nor_are_other_figures_that_cannot_be(changed: dict[str, float]) -> None:
    assert disputed(accounts(), replace(HONEST, **changed))
    assert disputed(accounts(), None)


def test_what_may_be_is_taken() -> None:
    """Its ledger knows of other runs; its operator may ask for a smaller delta."""
    assert disputed(accounts(), HONEST) is None
    assert disputed(accounts(), replace(HONEST, epsilon=7.9)) is None
    smaller = 0.5 / 200_000
    own = epsilon([COST], smaller, "rdp")
    assert disputed(accounts(), replace(HONEST, epsilon=own, delta=smaller), client=1) is None
    assert disputed(accounts(), HONEST, client=1)  # the largest delta for so many examples is smaller
    assert disputed(accounts(void=True), PrivacySpent(2.0, 0.5, math.inf, 1e-5)) is None
    assert disputed(accounts(void=True), HONEST)


def test_what_was_booked_is_not_forgotten() -> None:
    found = accounts()
    found.book([0])
    assert disputed(found, HONEST)
    assert disputed(found, replace(HONEST, epsilon=TWO)) is None
    assert found.examine([ClientReport(0, declined=True)]) == {}


def test_a_run_marks_a_client_that_says_nan_and_goes_on(tmp_path: Path) -> None:
    def lie(reply: Message) -> Message:
        metrics = reply.content["metrics"] if reply.metadata.message_type == "train" else {}
        if "epsilon" in metrics:  # clients 0 and 2 in one SuperNode, 1 and 3 in the other
            metrics["epsilon"] = [math.nan, *metrics["epsilon"][1:]]
        return reply

    overrides = (
        "privacy=dp_sgd model=logistic_regression federation.num_clients=4 privacy.accountant=rdp partition=iid"
        " privacy.sample_rate=0.5 privacy.noise_multiplier=2.0 federation.num_rounds=2 federation.fraction_train=1"
    )
    run_in_process(tmp_path / "run", f"{overrides} run.output_dir={tmp_path / 'run'}", tamper=lie)
    rows = [json.loads(line) for line in (tmp_path / "run" / "clients.jsonl").read_text().splitlines()]
    assert {row["client"] for row in rows if "epsilon_disputed" in row} == {0, 1}
    assert [row["epsilon"] for row in rows] == pytest.approx(4 * [ONE] + 4 * [TWO])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["epsilon_max"] == pytest.approx(TWO)
    assert summary["privacy"]["delta"] == 1e-5
