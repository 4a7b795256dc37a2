"""The config that most tests get, by quick_compose.py, is Hydra's."""

import importlib

import pytest
from hydra import compose as hydra_compose
from quick_compose import quick

from fedapp.common.errors import ConfigError
from fedapp.config.overrides import CONF_DIR

module = importlib.import_module("fedapp.config.compose")
EXPERIMENTS = sorted(path.stem for path in (CONF_DIR / "experiment").glob("*.yaml"))
VALUES = (
    ["run.seed=3", "federation.num_rounds=7", "run.name=a b"],
    ["privacy=dp_sgd", "privacy.noise_multiplier=2.0", "data=digits"],
    ["lr_schedule@client_lr=cosine", "strategy=median", "federation.num_clients=12", "data=digits"],
    ["data=csv", "data.label=[a,b]", "data.path=x.csv"],
)
REFUSED = (["federation.rounds=3"], ["data.nothing=3"], ["federation.num_rounds=many"], ["data=none_such"], ["+a.b=1"])


def told(overrides: list[str]) -> object:
    module._composed.cache_clear()
    try:
        return module.compose(overrides)
    except ConfigError as error:
        return str(error)


@pytest.mark.slow
@pytest.mark.parametrize("twice", [False, True], ids=["first", "remembered"])
def test_quickly_composed_configs_and_refusals_are_those_of_hydra(monkeypatch: pytest.MonkeyPatch, twice: bool) -> None:
    asked = [*VALUES, *REFUSED, *([f"experiment={name}", "run.seed=5"] for name in EXPERIMENTS)]
    monkeypatch.setattr(module, "hydra_compose", hydra_compose)
    right = [told(list(overrides)) for overrides in asked]
    monkeypatch.setattr(module, "hydra_compose", quick(hydra_compose))
    if twice:
        [told(list(overrides)) for overrides in asked]
    assert [told(list(overrides)) for overrides in asked] == right
    refused = range(len(VALUES), len(VALUES) + len(REFUSED))
    assert [at for at, answer in enumerate(right) if isinstance(answer, str)] == list(refused)
