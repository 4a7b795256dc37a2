"""Whom a round asks: by the rules of each option, alike for any SuperNodes and after a resume, and told to nobody."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from flwr.app import Message
from in_process import InProcessGrid, run_in_process

from fedapp.aggregation.selection.by_data import ByData
from fedapp.aggregation.selection.power_of_choice import PowerOfChoice
from fedapp.aggregation.selection.selection import weighted_sample
from fedapp.aggregation.selection.uniform import Uniform
from fedapp.common.errors import ConfigError, FederationError
from fedapp.config import compose
from fedapp.learning.build import build_parts
from fedapp.learning.build_shards import build_shards
from fedapp.learning.task import outputs_of
from fedapp.models.shared_state import shared_state
from fedapp.server.check_config import check_config
from fedapp.server.population.cohort import CohortRule
from fedapp.wire.instruction import Instruction, pack_instruction, unpack_instruction
from fedapp.wire.model import GlobalModel
from fedapp.wire.reply import unpack_reply

SMALL = "data=breast_cancer data.scaling=published model=mlp model.hidden=[4] federation.num_clients=8"
SMALL += " federation.fraction_train=0.25 train.batch_size=16 partition=dirichlet"
POWER = f"{SMALL} cohort=power_of_choice cohort.candidates=2.5"  # of 8 clients 5 are asked, and 2 of them train
ALONE = [(client,) for client in range(6)]
SIZES = {0: 1, 1: 2, 2: 3, 3: 4, 4: 5, 5: 0}


def nobody(clients: Sequence[int]) -> Mapping[int, float]:
    raise AssertionError("asked without need")


def test_uniform_cohorts_are_those_of_earlier_versions() -> None:
    """Results that were published before there was a choice stay as they are, bit for bit."""
    found = [CohortRule(seed=0).sample(range(20), 6, number) for number in (1, 2, 3)]
    assert found == [[5, 6, 11, 13, 14, 18], [1, 4, 6, 15, 16, 18], [2, 4, 9, 13, 18, 19]]
    assert compose([]).cohort == {"_target_": "fedapp.aggregation.selection.uniform.Uniform"}
    assert Uniform().words == ""


def test_clients_are_drawn_in_proportion_to_their_examples() -> None:
    random, draws = Random(0), 15000
    found = Counter(weighted_sample(ALONE, 1, random, SIZES)[0][0] for _ in range(draws))
    for client, size in SIZES.items():  # five standard deviations
        chance = size / 15
        assert abs(found[client] - draws * chance) <= 5 * math.sqrt(draws * chance * (1 - chance))


def test_nobody_is_drawn_twice_and_the_empty_last() -> None:
    for seed in range(50):
        drawn = ByData().chosen(ALONE, 5, Random(seed), SIZES, nobody)
        assert sorted(drawn) == ALONE[:5]


def test_groups_are_drawn_whole_by_all_their_examples() -> None:
    groups = [(0, 1), (2, 3), (4, 5)]
    found = Counter(
        weighted_sample(groups, 1, Random(seed), dict.fromkeys(range(4), 0) | {4: 3, 5: 1})[0] for seed in range(20)
    )
    assert found == {(4, 5): 20}


@pytest.mark.parametrize(
    ("told", "chosen"),
    [
        ({0: 0.1, 1: 0.9, 2: 0.5, 3: 0.7}, [1, 3]),
        ({0: 0.5, 1: 0.5, 2: 0.5, 3: 0.5}, [0, 1]),  # by number, where all are alike
        ({0: 0.1, 2: 0.2}, [0, 2]),  # others did not reply
        ({0: math.nan, 1: math.inf, 2: 0.2, 3: 0.1}, [2, 3]),  # nobody is chosen for a loss that is none
    ],
)
def test_the_largest_losses_are_chosen(told: dict[int, float], chosen: list[int]) -> None:
    asked: list[int] = []

    def losses(clients: Sequence[int]) -> Mapping[int, float]:
        asked.extend(clients)
        return told

    found = PowerOfChoice(candidates=2.0).chosen(ALONE[:4], 2, Random(0), SIZES, losses)
    assert sorted(client for (client,) in found) == chosen
    assert asked == [0, 1, 2, 3]


def test_candidates_are_as_many_as_asked_for() -> None:
    asked: list[int] = []
    groups, sizes = [(client,) for client in range(40)], dict.fromkeys(range(40), 7)
    PowerOfChoice(candidates=2.5).chosen(groups, 4, Random(0), sizes, lambda clients: asked.extend(clients) or {})
    assert len(asked) == 10
    everybody = PowerOfChoice(candidates=5.0).chosen(groups[:4], 4, Random(0), sizes, nobody)
    assert everybody == groups[:4]


def test_a_rule_that_asks_first_needs_a_round() -> None:
    rule = replace(CohortRule(seed=0), selection=PowerOfChoice())
    with pytest.raises(FederationError, match="asks clients for their losses first"):
        rule.sample(range(8), 2, 1, dict.fromkeys(range(8), 1))


CONFLICTS = [
    ("cohort=by_data strategy.weighting=num_examples", "strategy.weighting=num_examples: cohort=by_data draws clients"),
    ("cohort=power_of_choice strategy.weighting=sqrt", "strategy.weighting=sqrt: cohort=power_of_choice draws clients"),
    ("cohort=by_data federation.fraction_train=1.0", "has nothing to choose"),
    ("cohort=power_of_choice federation.fraction_train=1.0", "has nothing to choose"),
    ("cohort=power_of_choice privacy=dp_sgd privacy.target_epsilon=3", "no loss may leave a client"),
    ("cohort=power_of_choice privacy=client_dp", "no loss may leave a client"),
    ("cohort=power_of_choice secure_aggregation=secaggplus", "no client's own figures leave it"),
    ("cohort=by_data privacy=client_dp", "drawn with the same secret chance"),
    ("cohort=power_of_choice cohort.candidates=1.0", "cohort.candidates=1.0: must be greater than 1"),
]


@pytest.mark.parametrize(("overrides", "said"), CONFLICTS)
def test_what_it_cannot_be_combined_with(overrides: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_config(compose(f"{SMALL} {overrides}".split()))


@pytest.mark.parametrize("overrides", ["privacy=dp_sgd privacy.target_epsilon=3", "secure_aggregation=secaggplus"])
def test_drawing_by_size_goes_with_what_tells_sizes(overrides: str) -> None:
    check_config(compose(f"{SMALL} cohort=by_data {overrides}".split()))


def test_whether_one_is_a_candidate_travels() -> None:
    model = GlobalModel({"w": torch.zeros(1)})
    for candidate in (False, True):
        sent = Instruction(3, (1,), (1.0,), candidate=candidate)
        assert unpack_instruction(pack_instruction(sent, model))[0] == sent


def judged(directory: Path, overrides: str) -> dict[int, dict[int, float]]:
    """A whole run; by round, what candidates said of their loss."""
    found: dict[int, dict[int, float]] = {}

    def tamper(reply: Message) -> Message:
        if reply.metadata.message_type == "evaluate" and reply.has_content():
            for report in unpack_reply(reply.content).reports:
                if report.train_loss is not None:
                    found.setdefault(int(reply.metadata.group_id), {})[report.client] = report.train_loss
        return reply

    run_in_process(directory, overrides, tamper=tamper)
    return found


@pytest.mark.slow
def test_a_round_trains_the_worst_of_its_candidates(tmp_path: Path) -> None:
    losses = judged(tmp_path / "run", f"{POWER} federation.num_rounds=3")
    rows = [json.loads(line) for line in (tmp_path / "run" / "clients.jsonl").read_text().splitlines()]
    assert losses.keys() == {1, 2, 3}
    for number, told in losses.items():
        trained = {row["client"] for row in rows if row["round"] == number and row.get("phase") != "final"}
        assert len(told) == 5
        assert trained == set(sorted(told, key=lambda client: -told[client])[:2])
    config = compose(POWER.split())
    parts = build_parts(config)
    split = build_shards(config, parts)
    first = {client: split.of(client).train for client in losses[1]}
    expected = {c: float(parts.task.loss(outputs_of(parts.model, own), own.targets)) for c, own in first.items()}
    assert losses[1] == pytest.approx(expected, rel=1e-5)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    size = sum(value.numel() * value.element_size() for value in shared_state(parts.model).values())
    assert lines[-1]["bytes_down"] >= 2 * 2 * size  # the candidates' messages count


@pytest.mark.slow
@pytest.mark.parametrize("cohort", ["cohort=power_of_choice", "cohort=by_data"])
def test_the_same_model_for_any_supernodes_and_after_a_resume(tmp_path: Path, cohort: str) -> None:
    overrides = f"{SMALL} {cohort}"
    digests = {}
    for nodes in (1, 3):
        run = run_in_process(tmp_path / str(nodes), f"{overrides} federation.num_rounds=4", num_nodes=nodes)
        digests[nodes] = json.loads((run / "summary.json").read_text())["model_sha256"]
    place = tmp_path / "resumed"
    for rounds in (2, 4):
        again = f"{overrides} run.output_dir={place} run.resume=auto federation.num_rounds={rounds}"
        run_in_process(place, again)
    digests[0] = json.loads((place / "summary.json").read_text())["model_sha256"]
    assert len(set(digests.values())) == 1
    plain = run_in_process(tmp_path / "plain", f"{SMALL} strategy.weighting=uniform federation.num_rounds=4")
    assert json.loads((plain / "summary.json").read_text())["model_sha256"] != digests[0]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [("", True), ("privacy=dp_sgd privacy.target_epsilon=3", False), ("secure_aggregation=secaggplus", False)],
)
def test_no_loss_is_told_where_none_may_leave(overrides: str, told: bool) -> None:
    """Whatever a server asks, in a run whose server had to refuse the option or has not looked."""
    given = f"{SMALL} {overrides}"
    grid = InProcessGrid(given, num_nodes=1)
    config = compose(given.split())
    model = GlobalModel(dict(shared_state(build_parts(config).model)))
    content = pack_instruction(Instruction(1, (0, 1), (0.5, 0.5), candidate=True), model)
    (reply,) = grid.send_and_receive([Message(content, 100, "evaluate", group_id="1")])
    assert [report.train_loss is not None for report in unpack_reply(reply.content).reports] == [told, told]
