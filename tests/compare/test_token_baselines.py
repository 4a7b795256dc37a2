"""A run is judged on what it has not learnt from."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from every_task import LANGUAGE
from safetensors.torch import save_file

from fedapp.common.errors import ConfigError
from fedapp.compare.token_baselines import Baselines
from fedapp.config import compose
from fedapp.data.source import Examples
from fedapp.server.run import settled

OVERRIDES = [*LANGUAGE.split(), "federation.num_clients=3", "train.val_fraction=0.2"]


@pytest.fixture(scope="module")
def made() -> Baselines:
    return Baselines(compose(OVERRIDES))


def saved(made: Baselines, folder: Path, *changes: str) -> Path:
    """The directory of a run with these overrides besides, whose model is not the one that all begin with; YAML takes
    JSON, too."""
    config = settled(compose([*OVERRIDES, *changes]), made.parts)
    (folder / "config.yaml").write_text(json.dumps(asdict(config)))
    save_file({key: value * 0.5 for key, value in made.start.items()}, folder / "model.safetensors")
    return folder


def test_a_run_of_the_same_text_is_judged(made: Baselines, tmp_path: Path) -> None:
    made.run(saved(made, tmp_path, "federation.num_rounds=2", "optimizer.lr=0.1"))
    judged = {on for name, on in made.judged.scores if name == "federated"}
    assert judged == {"held-out lines of the clients", "held-out clients"}


@pytest.mark.parametrize(
    "change",
    ["data.split_seed=7", "run.seed=5", "train.val_fraction=0.3", "federation.num_clients=4", "model.hidden=13"],
)
def test_a_run_that_had_other_text_is_refused(made: Baselines, change: str, tmp_path: Path) -> None:
    key, _, value = change.partition("=")
    with pytest.raises(ConfigError, match=rf"--run .*: is of other data or another model[^$]*{key}=.*: was {value}"):
        made.run(saved(made, tmp_path, change))


def test_a_run_without_a_config_is_refused(made: Baselines, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml: is no config of a run"):
        made.run(tmp_path)


@dataclass(frozen=True)
class Watched:
    """In place of training: how many windows at which learning rate."""

    local_epochs: int = 3
    seen: list[tuple[int, float]] = field(default_factory=list)

    def __call__(self, model: Any, examples: Examples, *, seed: Any, lr_factor: float) -> None:
        assert self.local_epochs == 1
        self.seen.append((len(examples), lr_factor))


def test_the_pooled_network_has_as_many_windows_at_the_rates_of_the_rounds() -> None:
    cosine = ["lr_schedule@client_lr=cosine", "federation.num_rounds=4", "train.local_epochs=2"]
    made = Baselines(compose([*OVERRIDES, *cosine]))
    made.training = watched = Watched()  # type: ignore[assignment]
    made.pooled()
    assert sum(count for count, _ in watched.seen) == made.windows_of_the_federation > 2 * len(made.train)
    assert [rate for _, rate in watched.seen] == pytest.approx([1.0, 0.5 + 8**-0.5, 0.5, 0.5 - 8**-0.5])


def test_each_clients_fine_tuning_is_compared_with_the_model_as_it_is(made: Baselines, tmp_path: Path) -> None:
    """On the same lines of the same clients, and with what they train alone."""
    folder = saved(made, tmp_path)
    made.alone(2, 1, print)
    made.fine_tuned(folder, 2, 1, print)
    name, on = "federated", "held-out lines of 2 clients"
    found = {(row.model, row.than) for row in made.judged.differences(["token_accuracy"]) if row.on == on}
    tuned = f"{name}, fine-tuned by each client"
    assert found == {(tuned, "network, each client alone"), (tuned, f"{name}, as it is")}
    scores = [made.judged.scores[one, on] for one in (tuned, f"{name}, as it is", "network, each client alone")]
    assert not scores[0].equal(scores[1])
    assert not scores[0].equal(scores[2])
