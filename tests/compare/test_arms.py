"""Which arms there are, and what is refused."""

from pathlib import Path

import pytest

from fedapp.common.errors import ConfigError
from fedapp.compare.compared_arms import arms_of, base_overrides, check_base, rounds_alone, variants
from fedapp.compare.comparison import Asked, prepare
from fedapp.config import compose

BASE = ["data=breast_cancer", "model=logistic_regression", "federation.num_clients=4"]


def test_more_is_held_out_unless_the_share_is_given() -> None:
    assert compose(base_overrides(BASE)).train.val_fraction == 0.3
    assert compose(base_overrides([*BASE, "train.val_fraction=0.2"])).train.val_fraction == 0.2
    assert compose(base_overrides(["experiment=hospitals"])).train.val_fraction == 0.3


def test_commas_separate_variants_and_spaces_their_overrides() -> None:
    given = ["federation.personal=finetune,model.hidden=[8,8] optimizer.lr=0.1", "strategy=fedprox"]
    assert variants(given) == [
        ("federation/personal=finetune",),
        ("model.hidden=[8,8]", "optimizer.lr=0.1"),
        ("strategy=fedprox",),
    ]
    with pytest.raises(ConfigError, match="--with fedprox: must be key=value"):
        variants(["fedprox"])


def test_alone_and_pooled_have_nothing_of_a_federation() -> None:
    base = [
        *(*BASE, "data.scaling=published", "privacy=dp_sgd", "privacy.target_epsilon=3", "strategy=fedadam"),
        *(
            "strategy.weighting=uniform",
            "train.proximal_mu=0.5",
            "train.logit_adjustment=1",
            "federation.personal=none",
        ),
        *("downlink=differences", "downlink.bits=4"),
    ]
    alone = next(arm for arm in arms_of(base, compose(base), []) if arm.owner == "alone")
    config, plain = compose(alone.overrides), compose([])
    assert config.privacy == plain.privacy
    assert config.strategy == plain.strategy
    assert config.downlink == plain.downlink
    assert config.train.proximal_mu == config.train.logit_adjustment == 0.0
    assert (config.federation.num_clients, config.federation.fraction_train) == (1, 1.0)
    assert compose(base).privacy != plain.privacy


def test_keys_that_an_experiment_sets_go_with_their_option() -> None:
    base = ["experiment=digits_dp"]
    alone = next(arm for arm in arms_of(base, compose(base), []) if arm.owner == "alone")
    assert compose(alone.overrides).privacy == compose([]).privacy


@pytest.mark.parametrize(("fraction", "rounds"), [(1.0, 60), (0.5, 30), (0.25, 15)])
def test_a_client_alone_has_as_many_rounds_as_one_of_the_cohorts(fraction: float, rounds: int) -> None:
    over = [f"federation.fraction_train={fraction}", "federation.num_clients=20"]
    assert rounds_alone(compose(over)) == rounds


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("federation.patience=3", "federation.patience=3: all arms of a comparison take the same number of steps"),
        ("federation.result=best", "federation.result=best: .* set federation.result=last"),
        ("federation.target_accuracy=0.9", "federation.target_accuracy=0.9"),
        ("train.max_seconds=5", "train.max_seconds=5"),
        ("train.val_fraction=0", "train.val_fraction=0: leaves no rows to judge on"),
        ("federation.num_clients=1", "federation.num_clients=1: a comparison needs two sites or more"),
        ("run.engine=flower", "run.engine=flower: a comparison runs on the local engine"),
    ],
)
def test_what_would_not_be_fair_is_refused(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_base(compose([*BASE, override]))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Asked((*BASE, "run.seed=3")), "give the seeds of a comparison by --seeds"),
        (Asked(tuple(BASE), metric="auc"), "--metric auc: the task has accuracy; name another in task.metrics"),
        (Asked(tuple(BASE), (("data.test_fraction=0.1",),)), "--with data.test_fraction=0.1: changes data"),
        (Asked(tuple(BASE), (("federation.num_clients=3",),)), "federation.num_clients is 4 in all arms"),
        (Asked(tuple(BASE), (("train.val_fraction=0.5",),)), "train.val_fraction is 0.3 in all arms"),
        (Asked(tuple(BASE), (("federation.patience=2",),)), "federation.patience=2"),
        (Asked(tuple(BASE), (("privacy=dp_sgd",),)), "data.scaling"),
        (Asked(tuple(BASE), (("federation.personal=norm",),)), "has no normalisation layer"),
        (Asked(tuple(BASE), (("strategy=fedprox",), ("strategy=fedprox",))), "a variant is there twice"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_compared_is_refused_before_anything_starts(asked: Asked, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        prepare(asked, tmp_path / "new")
    assert not (tmp_path / "new").exists()
