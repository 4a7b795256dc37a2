"""Canaries in models of text: one that was learnt by heart is found, one that nobody has is not."""

import json
import math
from pathlib import Path

import pytest
import torch
from every_task import TEXTS
from torch import Tensor, nn

from fedapp.audit import canaries
from fedapp.audit.canaries import audit_canaries
from fedapp.audit.canary_lines import Canary, with_canary
from fedapp.audit.canary_search import LARGEST_EXPOSURE, exposure, most_probable, ordinary_tokens
from fedapp.common.errors import ConfigError, FederationError
from fedapp.common.seeding import generator
from fedapp.config import compose
from fedapp.data.source import Examples, Schema
from fedapp.data.text.vocabulary import Words
from fedapp.learning.build import build_parts
from fedapp.learning.tasks.next_token import NextToken
from scripts import audit as command

WORDS = Words(size=40)
TASK = NextToken(Schema((8,), vocabulary=len(WORDS), text=WORDS))
SMALL = (
    f"data=text data.path={TEXTS} data.window=8 data.vocabulary_size=200 data.test_clients=2 partition=natural"
    " partition.partition_by=user federation.num_clients=2 federation.fraction_train=1 model=lstm model.embedding=16"
    " model.hidden=32 train.val_fraction=0 federation.final_evaluation=false"
)


class Parrot(nn.Module):
    """Goes on with one line, whatever comes before; else every token is as likely."""

    def __init__(self, line: tuple[int, ...]) -> None:
        super().__init__()
        self.line = line
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.zeros(*x.shape, len(WORDS))
        for place, token in enumerate(self.line):
            logits[:, place, token] = 9.0
        return logits


def test_what_the_model_knows_by_heart_is_exposed_and_extracted() -> None:
    canary = Canary(0, 1, (10, 11, 12), (13, 14, 15))
    knowing, ignorant = Parrot((10, 11, 12, 13, 14, 15)), Parrot((10, 11, 12, 20, 21, 22))
    found = exposure(knowing, TASK, canary.prefix, canary.secret, generator(0))
    assert found > LARGEST_EXPOSURE - 1  # a drawn secret may be the same
    assert most_probable(knowing, TASK, canary.prefix) == canary.secret
    assert exposure(ignorant, TASK, canary.prefix, canary.secret, generator(0)) < 1
    assert most_probable(ignorant, TASK, canary.prefix) == (20, 21, 22)


def test_exposure_is_that_of_the_rank() -> None:
    """Half of the tokens are likelier than those of the secret, by the same at each place."""
    able = ordinary_tokens(TASK)

    class Ordered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return torch.arange(len(WORDS)).float().expand(*x.shape, -1)

    middle = able[len(able) // 2]
    found = exposure(Ordered(), TASK, (5, 5, 5), (middle,) * 3, generator(0))
    assert found == pytest.approx(1.0, abs=0.2)  # about half of all sums of three are larger


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_of_a_model_that_is_not_finite_nothing_is_said(wrong: float) -> None:
    class Broken(Parrot):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * wrong

    with pytest.raises(FederationError, match="probabilities are not finite"):
        exposure(Broken((10, 11, 12, 13, 14, 15)), TASK, (1, 2, 3), (4, 5, 6), generator(0))


@pytest.mark.parametrize(("clients", "fraction", "rounds"), [(5, 0.5, 7), (3, 0.5, 5), (10, 0.3, 11), (4, 1.0, 3)])
def test_a_client_is_once_in_a_round_and_each_participation_is_accounted(
    clients: int, fraction: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = SMALL.replace("num_clients=2", f"num_clients={clients}").replace("train=1", f"train={fraction}")
    private = "privacy=dp_sgd privacy.target_epsilon=null privacy.noise_multiplier=1"
    config = compose([*overrides.split(), f"federation.num_rounds={rounds}", *private.split()])
    cohorts = canaries._cohorts(config)
    assert [len(set(cohort)) for cohort in cohorts] == [math.ceil(clients * fraction)] * rounds
    asked = [sum(client in cohort for cohort in cohorts) for client in range(clients)]
    assert max(asked) - min(asked) <= 1
    accounted: list[int] = []
    monkeypatch.setattr(canaries, "epsilon", lambda costs, delta, accountant: accounted.append(len(costs)) or 0.0)
    canaries._training(config, build_parts(config), 20)
    assert accounted == [max(asked)]


def test_a_canary_is_a_line_of_its_client() -> None:
    examples = with_canary(
        Examples(torch.full((1, 8), 5), torch.full((1, 8), 6)),
        TASK,
        Canary(0, 3, (10, 11, 12), (13, 14, 15)),
    )
    assert len(examples) == 4
    assert examples.inputs[1].tolist() == [WORDS.begin, 10, 11, 12, 13, 14, 15, WORDS.end]
    assert examples.targets[3].tolist() == [10, 11, 12, 13, 14, 15, WORDS.end, WORDS.padding]


@pytest.mark.slow
def test_dp_keeps_what_plain_training_tells(tmp_path: Path) -> None:
    """Sixty copies of a line among some thirteen others are learnt by heart; not under DP-SGD whose epsilon of all
    sixty is small. A line that nobody learnt has an exposure above 9 once in 2^9 runs."""
    plain = "optimizer=adamw optimizer.lr=0.02 train.batch_size=8 federation.num_rounds=8"
    overrides = [*SMALL.split(), *plain.split(), "privacy.sample_rate=0.2"]
    code = command.main(
        [
            *overrides,
            "--canaries",
            "--candidates",
            "1",
            "--copies",
            "60",
            "--epsilon",
            "0.05",
            "--output",
            str(tmp_path),
        ]
    )
    assert code == 0
    without, private = json.loads((tmp_path / "audit.json").read_text())["arms"]
    assert min(without["exposures"]["60"]) > 6
    assert without["extracted"]["60"] >= 1
    assert without["extracted"]["0"] == private["extracted"]["0"] == private["extracted"]["60"] == 0
    assert max(private["exposures"]["60"]) < 9
    assert (without["epsilon"], private["epsilon"] <= 0.05) == (None, True)


def test_other_tasks_and_short_windows_are_refused() -> None:
    with pytest.raises(ConfigError, match="--canaries: are looked for in models of text"):
        audit_canaries(["model=logistic_regression"], (), canaries=1, copies=(1,))
    with pytest.raises(ConfigError, match=r"data\.window: a canary has 6 tokens"):
        audit_canaries([*SMALL.split(), "data.window=5"], (), canaries=1, copies=(1,))
