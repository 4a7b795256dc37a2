"""The audit's attacks and its statistics: on closed forms, on federations that leak, and on those that must not."""

import itertools
import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from saved_runs import load_script
from scipy import integrate, stats
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

import fedapp.privacy.plan
from fedapp.audit.arms import Setting, attack_batch, open_arm
from fedapp.audit.attacks import ATTACKS, calibrated, likelihood_ratio
from fedapp.audit.audit import Audited, Found, Size, judge
from fedapp.audit.bounds import Area, area_under_curve, epsilon_bound, largest_area, lower_bound, p_value, rates
from fedapp.audit.worlds import Game, Signals, gradients, membership, play
from fedapp.common.errors import ConfigError
from fedapp.learning.training import LocalTraining
from fedapp.privacy.noise import Noise

SMALL = ("experiment=audit", "federation.num_clients=3", "federation.num_rounds=5", "privacy.sample_rate=0.5")


# --- statistics --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("guesses", "right"), [(100, 80), (1000, 530), (50, 50), (40, 21)])
def test_without_delta_the_bound_is_that_of_clopper_and_pearson(guesses: int, right: int) -> None:
    share = stats.binomtest(right, guesses, alternative="greater").proportion_ci(0.95, method="exact").low
    expected = max(0.0, math.log(share / (1 - share)))
    assert lower_bound(guesses, guesses, right, 0.0, 0.05) == pytest.approx(expected, abs=0.002)


def test_delta_weakens_the_bound() -> None:
    bounds = [lower_bound(1000, 100, 90, delta, 0.05) for delta in (0.0, 1e-5, 1e-3, 0.05)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] - bounds[1] < 0.01
    assert bounds[-1] == 0.0
    # By hand: 2 guesses of 2 examples right at epsilon 0, delta 0.01: 1/4, and 2 * 2 * 0.01 * max(1/2, 3/4 / 2).
    assert p_value(2, 2, 2, 0.0, 0.01) == pytest.approx(0.25 + 0.04 * 0.5)


@pytest.mark.slow
def test_the_bound_holds_for_a_mechanism_of_known_epsilon_and_is_tight() -> None:
    """Randomized response: members answer 1 and strangers 0, truly with probability e^eps / (1 + e^eps)."""
    random, epsilon, runs = np.random.default_rng(0), 1.5, 200
    found = []
    for _ in range(runs):
        members = random.random((4, 100)) < 0.5
        truly = random.random((4, 100)) < 1 / (1 + math.exp(-epsilon))
        answers = np.where(truly, members, ~members) + random.random((4, 100)) * 1e-3  # ties broken by chance
        found.append(epsilon_bound(torch.from_numpy(answers), torch.from_numpy(members), 0.0, 0.95))
    wrong = sum(bound > epsilon for bound in found)
    assert wrong <= stats.binom.ppf(1 - 1e-6, runs, 0.05)
    assert float(np.median(found)) > 0.7 * epsilon


def test_the_bound_pays_for_choosing_the_best_share(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("fedapp.audit.bounds.lower_bound", lambda *given: asked.append(given) or 0.1 * len(asked))
    assert epsilon_bound(torch.rand(4, 50), torch.rand(4, 50) < 0.5, 1e-5, 0.95) == pytest.approx(0.3)
    assert [(given[0], given[1]) for given in asked] == [(200, 200), (200, 40), (200, 8)]
    assert all(given[4] == pytest.approx(0.05 / 3) for given in asked)


def test_chance_proves_nothing() -> None:
    random = torch.Generator().manual_seed(0)
    scores, members = torch.rand(20, 50, generator=random), torch.rand(20, 50, generator=random) < 0.5
    assert epsilon_bound(scores, members, 1e-5, 0.95) == 0.0
    area = area_under_curve(scores, members, 0.999, 0)
    assert area.low < 0.5 < area.high


def test_area_and_rates_are_scikit_learns() -> None:
    random = torch.Generator().manual_seed(1)
    members = torch.rand(8, 30, generator=random) < 0.5
    scores = torch.rand(8, 30, generator=random) + 0.5 * members
    labels, values = members.flatten().numpy(), scores.flatten().numpy()
    area = area_under_curve(scores, members, 0.95, 0)
    assert area.value == pytest.approx(roc_auc_score(labels, values))
    assert area.low < area.value < area.high
    false, true = rates(scores, members)
    expected = roc_curve(labels, values, drop_intermediate=False)
    assert np.allclose(false, expected[0])
    assert np.allclose(true, expected[1])


def test_the_interval_knows_that_worlds_differ() -> None:
    """Few worlds whose scores all move together leave more doubt than as many independent scores."""
    random = torch.Generator().manual_seed(0)
    members = torch.rand(10, 200, generator=random) < 0.5
    noise = torch.randn(10, 200, generator=random)
    together = members * torch.randn(10, 1, generator=random) + 0.3 * noise
    wide, narrow = (area_under_curve(s, members, 0.95, 0) for s in (together, noise))
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 0.0), (1.0, 1e-5), (3.0, 0.1)])
def test_the_largest_area_is_that_above_the_bounding_lines(epsilon: float, delta: float) -> None:
    def missed(false: float) -> float:
        return max(0.0, 1 - delta - math.exp(epsilon) * false, math.exp(-epsilon) * (1 - delta - false))

    below, _ = integrate.quad(missed, 0, 1, points=[(1 - delta) / (1 + math.exp(epsilon)), 1 - delta])
    assert largest_area(epsilon, delta) == pytest.approx(1 - below, abs=1e-6)


# --- attacks -----------------------------------------------------------------------------------------------------


def signals(values: Tensor, members: Tensor) -> Signals:
    return Signals(members, values, values, values, values, values)


def test_likelihood_ratio_is_that_of_the_gaussians() -> None:
    random = torch.Generator().manual_seed(0)
    members = torch.rand(40_000, 3, generator=random) < 0.5
    values = torch.randn(40_000, 3, generator=random).double() * torch.where(members, 0.5, 1.5) + members * 2.0
    seen = torch.tensor([[0.0, 1.0, 2.5]]).double()
    score = likelihood_ratio("final_losses")(signals(values, members), signals(seen, torch.ones(1, 3).bool()))
    expected = stats.norm.logpdf(seen, 2.0, 0.5) - stats.norm.logpdf(seen, 0.0, 1.5)
    assert np.allclose(score, expected, atol=0.3)  # fitted to some 20,000 values each
    less = calibrated("final_losses")(signals(values, members), signals(seen, torch.ones(1, 3).bool()))
    assert np.allclose(less, seen, atol=5 * 1.5 / math.sqrt(20_000))


def test_an_example_that_was_always_a_member_is_no_trouble() -> None:
    members = torch.tensor([[True, False], [True, True]])
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).double()
    score = likelihood_ratio("final_losses")(signals(values, members), signals(values, members))
    assert torch.isfinite(score).all()


def game(**options: Any) -> Game:
    return replace(open_arm(Setting(("model=logistic_regression", "federation.num_clients=3"), 40)).game, **options)


def test_gradients_are_those_of_each_example() -> None:
    played = game()
    found = gradients(played.task, played.model, played.candidates)
    parameters = dict(played.model.named_parameters())
    for index in (0, 7):
        one = played.candidates.span(index, index + 1)
        loss = played.task.loss(played.model(one.inputs), one.targets)
        for name, expected in zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True):
            assert torch.allclose(found[name][index], expected, atol=1e-6)


def test_membership_is_a_fair_coin_of_its_own() -> None:
    coins = torch.stack([membership(game(), world) for world in range(500)]).double()
    assert coins.shape == (500, 40)
    assert float((coins.mean(0) - 0.5).abs().max()) < 5.4 * 0.5 / math.sqrt(500)  # 40 shares, 1e-6 in all
    together = torch.corrcoef(coins.T)
    assert float((together - torch.eye(40)).abs().max()) < 6.2 / math.sqrt(500)  # 780 pairs, 1e-6 in all


def test_signals_of_one_step_by_hand() -> None:
    """One client, one step over all its data: the update is minus the mean of the members' gradients."""
    training = LocalTraining(
        loss=game().task.loss, optimizer=lambda p: torch.optim.SGD(p, lr=0.5), local_epochs=1, batch_size=1000
    )
    played = game(training=training, others=[], num_rounds=1)
    members = membership(played, 3)
    flat = torch.cat([g.flatten(1) for g in gradients(played.task, played.model, played.candidates).values()], 1)
    update = -0.5 * flat[members].mean(0)
    before = {key: value.clone() for key, value in played.model.state_dict().items()}
    found = play(played, [3])
    assert torch.equal(found.members[0], members)
    assert torch.allclose(found.alignments[0], (-(flat @ update) / flat.norm(dim=1)).double(), atol=1e-5)
    assert torch.equal(found.final_losses, found.update_losses)  # of a single client both are the same model
    assert all(torch.equal(before[key], value) for key, value in played.model.state_dict().items())
    probability = torch.exp(found.final_losses)
    assert torch.allclose(found.final_confidences, torch.log(probability / (1 - probability)), atol=1e-6)


def test_the_average_is_over_all_clients() -> None:
    """A client whose training does nothing halves what the other one did."""
    moved = iter(itertools.cycle([1.0, 0.0]))

    def training(model: torch.nn.Module, *_: Any, **__: Any) -> None:
        step = next(moved)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += step

    played = game(training=training, others=[game().others[0]], num_rounds=1)
    start = {key: value.clone() for key, value in played.model.state_dict().items()}
    found = play(played, [0])
    for factor, losses in ((1.0, found.update_losses), (0.5, found.final_losses)):
        shifted = {k: v + factor if k in dict(played.model.named_parameters()) else v for k, v in start.items()}
        played.model.load_state_dict(shifted)
        outputs = played.model(played.candidates.inputs).double()
        assert torch.allclose(-played.task.loss_per_example(outputs, played.candidates.targets), losses[0], atol=1e-5)


# --- federations -------------------------------------------------------------------------------------------------


@pytest.fixture
def reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise that differs from call to call but not from test run to test run, so that no test fails by chance."""
    keys = itertools.count(1)
    monkeypatch.setattr(fedapp.privacy.plan, "make_noise", lambda *_: Noise(next(keys)))
    open_arm.cache_clear()


def audited(
    epsilon: float | None, candidates: int = 60, worlds: int = 32, confidence: float = 0.95, **changed: Any
) -> Audited:
    setting = Setting(SMALL, candidates, epsilon)
    arm = open_arm(setting)
    played = replace(arm.game, training=replace(arm.game.training, **changed)) if changed else arm.game
    half = worlds // 2
    found = judge(play(played, range(worlds)), arm, Size(shadows=half, attacked=half, confidence=confidence))
    return Audited(setting.name, arm.epsilon, arm.delta, arm.text, found, attack_batch(setting, 4, 300))


@pytest.mark.slow
def test_an_overfitted_model_without_privacy_is_seen_through() -> None:
    found = audited(None)
    assert found.epsilon is None
    for target in ("updates", "final model"):
        best = max(f.area.low for f in found.attacks if f.target == target)
        assert best > 0.7
    assert max(f.epsilon_bound for f in found.attacks) > 1.0
    assert found.inversion.explained > 0.95


@pytest.mark.slow
@pytest.mark.usefixtures("reproducible")
def test_at_epsilon_1_loss_threshold_and_lira_hardly_beat_chance_and_nothing_beats_epsilon() -> None:
    """The two attacks that know most, calibrated loss and alignment, may be above chance: ε = 1 allows for it."""
    found = audited(1.0, confidence=1 - 0.05 / len(ATTACKS))  # 95 % for all attacks together (Bonferroni)
    assert found.epsilon is not None
    assert 0.95 < found.epsilon <= 1.0
    assert len(found.attacks) == len(ATTACKS)
    named = [f for f in found.attacks if f.attack.startswith(("loss threshold", "LiRA"))]
    assert len(named) == 4
    # Over twelve choices of keys the loss threshold on updates had 0.50 to 0.57, with intervals from 0.46 to 0.53.
    assert all(f.area.low <= 0.55 for f in named), named
    assert all(f.area.value < 0.6 < found.largest_area for f in found.attacks), found.attacks
    assert all(f.epsilon_bound <= found.epsilon for f in found.attacks)
    assert not found.refuted
    assert found.inversion.explained < 0.0


@pytest.mark.slow
def test_noise_that_is_missing_is_found_out() -> None:
    """The same clipping and sampling as at epsilon 1, but no noise: attacks prove that the accountant is wrong."""
    assert audited(1.0, noise_multiplier=0.0).refuted


# --- refusals and the command ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "candidates", "part"),
    [
        (("data=breast_cancer", "model=mlp"), 100, "data.scaling=federated"),
        ((), 5000, "too few for 5000 candidates"),
        (("strategy=median",), 100, "strategy=median: has no effect on an audit"),
        (("train.logit_adjustment=1",), 100, "train.logit_adjustment: the attacks of an audit do not reckon with it"),
        (("federation.fraction_train=0.5",), 100, "federation.fraction_train=0.5: has no effect"),
        (("privacy.noise_multiplier=5",), 100, "follows from --epsilon"),
        (("model=torchvision", "model.name=resnet18", "model.norm=batch"), 100, "BatchNorm"),
    ],
)
def test_what_cannot_be_attacked_is_refused(overrides: tuple[str, ...], candidates: int, part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        open_arm(Setting(overrides, candidates, 3.0))


@pytest.mark.slow
def test_the_exit_status_tells_of_a_refuted_epsilon(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load_script("audit")
    curve = (torch.tensor([0.0, 1.0]),) * 2
    found = tuple(Found(a.target, a.name, Area(0.9, 0.8, 1.0), 0.5, 2.0, curve) for a in ATTACKS)
    inversion = SimpleNamespace(truth=torch.zeros(2, 3), found=torch.zeros(2, 3), explained=0.1)
    for epsilon, status in ((3.0, 0), (1.0, 1)):
        result = [Audited(f"ε = {epsilon}", epsilon, 1e-5, "it", found, inversion)]  # type: ignore[arg-type]
        monkeypatch.setattr("audits.examples.audit", lambda *_, result=result: result)
        assert script.main(["--output", str(tmp_path / str(status))]) == status
        assert ("proves ε >= 2.00" in capsys.readouterr().out) == bool(status)
    assert script.main(["--output", str(tmp_path / "1")]) == 2
    assert "is not a new or empty directory" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "attack"),
    [
        ([], "attack_examples"),
        (["--unit", "client"], "attack_clients"),
        (["--canaries"], "attack_lines"),
        (["task=vertical"], "attack_parties"),
    ],
)
def test_a_crash_is_no_refutation(
    arguments: list[str],
    attack: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = load_script("audit")
    monkeypatch.setattr(script, attack, lambda *_: 1 / 0)
    assert script.main([*arguments, "--output", str(tmp_path / "new")]) == 2
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_a_batch_larger_than_the_candidates_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["federation.num_rounds=1", "--batch-size", "500", "--output", str(tmp_path / "new"), "--epsilon", ""]
    assert load_script("audit").main(arguments) == 2
    assert "--batch-size 500: more than the 100" in capsys.readouterr().out


def test_nonsense_is_refused_before_anything_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = load_script("audit")
    for arguments in (
        ["--epsilon", "8,0"],
        ["--epsilon", "x"],
        ["--shadows", "0"],
        ["--confidence", "1"],
        ["--candidates", "2"],
        ["--jobs", "inf"],
        ["--attacked", "nan"],
    ):
        with pytest.raises(SystemExit):
            script.main(arguments)
    assert script.main(["model.hiden=[3]", "--output", str(tmp_path / "none")]) == 2
    assert "hiden" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_the_command_leaves_its_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a process of its own for the federations."""
    script = load_script("audit")
    monkeypatch.setattr("audits.examples.Size", partial(Size, inversion_steps=5))
    size = ["--shadows", "2", "--attacked", "2", "--candidates", "20", "--epsilon", "3", "--jobs", "1"]
    overrides = [*SMALL, "federation.num_rounds=1", "privacy.accountant=rdp"]
    assert script.main([*overrides, *size, "--output", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"audit_dir={tmp_path / 'new'}"
    content = json.loads((tmp_path / "new" / "audit.json").read_text())
    assert content["attacked"] == "mlp (4,810 parameters) on Digits, 3 clients, 1 rounds"
    assert [arm["name"] for arm in content["arms"]] == ["without DP", "ε = 3"]
    assert content["arms"][1]["epsilon"] == pytest.approx(3.0, abs=0.05)
    assert len(content["arms"][1]["attacks"]) == len(ATTACKS)
    pictures = {path.stem for path in (tmp_path / "new").glob("*.png")}
    assert {"epsilon", "inversion", "roc-final-model-lira"} <= pictures
    assert len(pictures) == len(ATTACKS) + 2
