"""Attacks find what is there and nothing else; protections do what they say."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from parties import run_parties_in, summary_of

from fedapp.audit.embedding_attack import audit_embeddings, explained, recovered
from fedapp.audit.label_attacks import auc, audit_labels, by_direction, by_norm, completed
from fedapp.client.party.label_ledger import LABEL_LEDGER, spend_labels
from fedapp.common.errors import ConfigError, DataError, ModelError
from fedapp.config import compose
from fedapp.inference.saved import load_run
from fedapp.vertical.label_privacy import GradientNoise, LabelDP

RANDOM = np.random.default_rng(0)
LABELS = np.arange(400) % 4 == 0


def gradients() -> np.ndarray:
    """Of two classes that point apart, of which the rarer has the larger ones."""
    away = np.where(LABELS[:, None], 3.0, -1.0) * np.ones((1, 4))
    return away + 0.1 * RANDOM.standard_normal((400, 4))


def test_norm_and_direction_tell_labels_and_noise_hides_them() -> None:
    plain = gradients()
    assert auc(by_norm(plain), LABELS) > 0.99
    assert auc(by_direction(plain), LABELS) > 0.99
    assert auc(by_norm(RANDOM.standard_normal((400, 4))), LABELS) < 0.6
    noisy = GradientNoise(20.0).gradient(torch.from_numpy(plain).float(), torch.from_numpy(LABELS).long())
    assert auc(by_norm(noisy.double().numpy()), LABELS) < 0.62
    assert auc(by_direction(noisy.double().numpy()), LABELS) < 0.62


def test_noise_is_unbiased_and_along_the_difference() -> None:
    plain, targets = torch.from_numpy(gradients()).float(), torch.from_numpy(LABELS).long()
    noise = torch.stack([GradientNoise(1.0).gradient(plain, targets) - plain for _ in range(200)])
    difference = plain[targets == 1].mean(0) - plain[targets == 0].mean(0)
    unit = difference / difference.norm()
    size = float(difference.norm())
    count = noise.shape[0] * noise.shape[1]
    assert float((noise @ unit).mean().abs()) < 5 * 1.1 * size / math.sqrt(count)
    assert float((noise @ unit).std()) == pytest.approx(size * math.sqrt(1 + 1 / 64), rel=0.03)


@pytest.mark.parametrize(("epsilon", "classes"), [(0.5, 2), (1.0, 2), (2.0, 5)])
def test_randomised_labels_have_the_probabilities_of_their_epsilon(epsilon: float, classes: int) -> None:
    """Each answer's probability differs by a factor of e^epsilon at most between any two true labels."""
    targets = torch.arange(40_000) % classes
    drawn = LabelDP(epsilon).training_targets(targets, classes)
    shares = torch.zeros(classes, classes)
    shares.index_put_((targets, drawn), torch.ones(len(targets)), accumulate=True)
    shares /= shares.sum(1, keepdim=True)
    keep = math.exp(epsilon) / (math.exp(epsilon) + classes - 1)
    other = (1 - keep) / (classes - 1)
    expected = torch.full((classes, classes), other).fill_diagonal_(keep)
    assert torch.allclose(shares, expected, atol=5 * math.sqrt(0.25 * classes / 40_000))
    assert keep / other == pytest.approx(math.exp(epsilon))


def test_few_labels_complete_what_embeddings_separate() -> None:
    embeddings = LABELS[:, None] + 0.3 * RANDOM.standard_normal((400, 3))
    assert completed(embeddings, LABELS, seed=0) > 0.95
    assert completed(RANDOM.standard_normal((400, 3)), LABELS, seed=0) < 0.65


def test_sums_of_entities_that_repeat_determine_their_embeddings_up_to_a_constant() -> None:
    planes, hours = RANDOM.standard_normal((12, 3)), RANDOM.standard_normal((9, 3))
    first, second = RANDOM.integers(0, 12, 80), RANDOM.integers(0, 9, 80)
    first[:12], second[:12] = np.arange(12), 0
    second[12:21], first[12:21] = np.arange(9), 0
    one, other = recovered(planes[first] + hours[second], first, second)
    shift = planes[0]
    assert np.allclose(one, planes - shift, atol=1e-6)
    assert np.allclose(other, hours + shift, atol=1e-6)
    assert explained(one, planes) > 1 - 1e-9


def test_so_do_those_of_three_parties_of_which_some_lack_entities() -> None:
    parts = [RANDOM.standard_normal((count, 2)) for count in (6, 5, 4)]
    rows = [RANDOM.integers(0, len(part), 120) for part in parts]
    rows[2][:10] = -1
    sums = sum(np.where(own[:, None] >= 0, part[own], 0.0) for part, own in zip(parts, rows, strict=True))
    for part, found in zip(parts, recovered(np.asarray(sums), *rows), strict=True):
        assert explained(found, part) > 1 - 1e-6


def test_sums_of_entities_that_occur_once_tell_no_single_embedding_apart() -> None:
    parts = [RANDOM.standard_normal((100, 3)) for _ in range(2)]
    places = np.arange(100)
    for part, found in zip(parts, recovered(parts[0] + parts[1], places, places), strict=True):
        assert explained(found, part) == pytest.approx(0.5, abs=0.2)  # half of the sum, which is half of its own


@pytest.mark.parametrize(
    ("repeat", "masked", "least", "most"), [(1, True, 0, 0.8), (12, True, 0.99, 1), (1, False, 1, 1)]
)
def test_the_audit_finds_the_embeddings_of_entities_that_repeat(
    tmp_path: Path, repeat: int, masked: bool, least: float, most: float
) -> None:
    """240 sales in all, of as many or of fewer persons and shops."""
    count = 240 // repeat
    (tmp_path / "people.csv").write_text("person,age\n" + "".join(f"p{i},{RANDOM.random()}\n" for i in range(count)))
    (tmp_path / "shops.csv").write_text("shop,size\n" + "".join(f"s{i},{RANDOM.random()}\n" for i in range(count)))
    sales = [(i, i) if repeat == 1 else tuple(RANDOM.integers(0, count, 2)) for i in range(240)]
    (tmp_path / "sales.csv").write_text(
        "person,shop,paid,late\n"
        + "".join(f"p{a},s{b},{RANDOM.random()},{'ny'[i % 2]}\n" for i, (a, b) in enumerate(sales))
    )
    files = ",".join(f"{name}:{tmp_path}/{name}.csv" for name in ("people", "shops", "sales"))
    line = (
        f"task=vertical data=party_files data.label_party=sales data.label=late data.parties={{{files}}}"
        f" data.key=person data.keys={{shops:[shop]}} federation.num_rounds=1 vertical.embedding=3 model.hidden=[4]"
        f" data.test_fraction=0.5 vertical.fusion.masked={masked}"
    )
    found = audit_embeddings(compose(line.split()), "x")
    assert found.entities == 120
    assert set(found.found) == {"people", "shops"}
    for party, share in found.found.items():
        assert least - 1e-9 <= share <= most + 1e-9, (party, share)
        assert found.repeated[party] >= (1 if repeat == 1 else 4)


@pytest.mark.slow  # trains
def test_the_audit_trains_and_attacks() -> None:
    line = "task=vertical federation.num_rounds=1 vertical.embedding=4 model.hidden=[5] train.batch_size=64"
    found = audit_labels(compose(line.split()), "none")
    assert found.direction > 0.8
    assert 0.5 <= found.norm <= 1
    assert found.metrics["accuracy"] > 0.7


def test_labels_are_paid_for_once_for_each_set_that_is_drawn(tmp_path: Path) -> None:
    one, other = torch.tensor([0, 1, 1]), torch.tensor([1, 1, 1])
    folder = tmp_path / "keep"
    assert spend_labels(folder, one, 1.0, 2.5) == 1.0
    assert spend_labels(folder, one, 1.0, 2.5) == 1.0
    assert spend_labels(folder, other, 1.5, 2.5) == 2.5
    with pytest.raises(ConfigError, match="max-label-epsilon"):
        spend_labels(folder, torch.tensor([0, 0, 0]), 0.1, 2.5)
    assert len((folder / LABEL_LEDGER).read_text().splitlines()) == 2
    assert (folder / LABEL_LEDGER).stat().st_mode & 0o077 == 0
    (folder / LABEL_LEDGER).write_text("{}\n")
    with pytest.raises(DataError, match="cannot be read"):
        spend_labels(folder, one, 1.0, 2.5)


@pytest.mark.slow  # whole federations
def test_a_run_draws_its_labels_once_however_often_it_is_resumed(tmp_path: Path) -> None:
    line = "task=vertical vertical.embedding=4 model.hidden=[5] train.batch_size=200 vertical.label_privacy=label_dp"
    directory = run_parties_in(tmp_path / "run", f"{line} federation.num_rounds=1")
    run_parties_in(directory, f"{line} federation.num_rounds=2 run.resume=auto")
    (entry,) = (directory / "parties" / "means" / LABEL_LEDGER).read_text().splitlines()
    assert '"epsilon": 1.0' in entry
    assert summary_of(directory)["label_epsilon"] == 1.0
    with pytest.raises(ModelError, match="vertical run"):
        load_run(directory)
