"""A party that fails costs time, and no bit of the model; one that stays away ends the run with the last good state."""

import logging
from pathlib import Path

import pytest
from flwr.app import Error, Message
from in_process import InProcessGrid
from parties import SMALL, metrics_of, run_on_grid, run_parties_in, summary_of

from fedapp.common.errors import ConfigError, FederationError

pytestmark = pytest.mark.slow  # whole federations

TWO_ROUNDS = f"{SMALL} federation.num_rounds=2 train.batch_size=200"


class Failing(InProcessGrid):
    """The SuperNode of party `worst` does not do the message number `at` of those that it gets: it has been killed, and
    with `memory` = False it has lost what it knew. With `after`, it dies once it has done it. `always`: also later."""

    def __init__(
        self, line: str, at: int, *, memory: bool, after: bool = False, always: bool = False, node: int = 102
    ) -> None:
        super().__init__(line, 3)
        self._node = node
        self._at, self._memory, self._after, self._always, self.seen = at, memory, after, always, 0

    def _answer(self, message: Message) -> list[Message]:
        if message.metadata.dst_node_id != self._node:
            return super()._answer(message)
        self.seen += 1
        if self.seen != self._at and not (self._always and self.seen > self._at):
            return super()._answer(message)
        if self._after:
            super()._answer(message)
        if not self._memory:
            for key in list(self.contexts[self._node].state):
                del self.contexts[self._node].state[key]
        return [Message(Error(3, "killed"), reply_to=message)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_parties_in(tmp_path_factory.mktemp("run") / "run", TWO_ROUNDS, 3)


# Of `worst`'s messages the fifth is the initial evaluation, the sixth to eighth are batches, the ninth the evaluation.
@pytest.mark.parametrize(
    ("at", "memory", "after"),
    [(7, True, False), (7, True, True), (7, False, False), (9, False, True), (12, False, True)],
)
def test_a_party_that_is_killed_and_comes_back_changes_nothing(
    at: int, memory: bool, after: bool, undisturbed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    line = f"{TWO_ROUNDS} run.output_dir={tmp_path / 'run'}"
    with caplog.at_level(logging.WARNING, "flwr"):
        directory = run_on_grid(Failing(line, at, memory=memory, after=after), tmp_path / "run", line)
    assert "killed" in caplog.text
    assert summary_of(directory)["model_sha256"] == summary_of(undisturbed)["model_sha256"]
    same = ("test_loss", "test_accuracy", "train_loss")
    for one, other in zip(metrics_of(directory), metrics_of(undisturbed), strict=True):
        assert {name: one.get(name) for name in same} == {name: other.get(name) for name in same}


def test_a_label_party_that_has_trained_gives_the_same_gradients_once_more(undisturbed: Path, tmp_path: Path) -> None:
    line = f"{TWO_ROUNDS} run.output_dir={tmp_path / 'run'}"
    directory = run_on_grid(Failing(line, 7, memory=True, after=True, node=101), tmp_path / "run", line)
    assert summary_of(directory)["model_sha256"] == summary_of(undisturbed)["model_sha256"]


def test_a_party_that_stays_away_ends_the_run_with_the_last_good_state(undisturbed: Path, tmp_path: Path) -> None:
    line = f"{TWO_ROUNDS} run.output_dir={tmp_path / 'run'} federation.max_failed_rounds=1"
    with pytest.raises(FederationError, match="party worst"):
        run_on_grid(Failing(line, 11, memory=False, always=True), tmp_path / "run", line)
    found = summary_of(tmp_path / "run")
    assert found["status"] == "failed"
    assert metrics_of(tmp_path / "run")[1]["test_loss"] == metrics_of(undisturbed)[1]["test_loss"]
    going_on = run_parties_in(tmp_path / "run", f"{TWO_ROUNDS} run.resume=auto", 3)
    assert metrics_of(going_on)[-1]["test_loss"] == metrics_of(undisturbed)[-1]["test_loss"]
    assert summary_of(going_on)["model_sha256"] == summary_of(undisturbed)["model_sha256"]


def test_a_resumed_run_ends_with_the_same_model(undisturbed: Path, tmp_path: Path) -> None:
    line = f"{TWO_ROUNDS} federation.num_rounds=1"
    directory = run_parties_in(tmp_path / "run", line, 1)
    assert summary_of(directory)["model_sha256"] != summary_of(undisturbed)["model_sha256"]
    run_parties_in(directory, f"{TWO_ROUNDS} run.resume=auto", 2)
    assert summary_of(directory)["model_sha256"] == summary_of(undisturbed)["model_sha256"]
    assert [line["round"] for line in metrics_of(directory)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("privacy=dp_sgd data.scaling=published", "has no effect in task=vertical"),
        ("secure_aggregation=secaggplus", "has no effect in task=vertical"),
        ("federation.fraction_train=1.0", "federation.fraction_train=1.0: has no effect"),
        ("partition=iid", "use partition=columns"),
        ("vertical.label_party=shop", "must be one of the parties errors, means, worst"),
        ("'partition.parties={a:[nothing],b:\"*\"}' vertical.fusion=concat", "the data has no such column"),
        ('\'partition.parties={a:"mean *",b:"* error"}\'', "belongs to no party|only party without labels"),
        ("vertical.top=null", "vertical.embedding=2"),
        ("vertical.label_privacy=noise data=digits", "partition.parties: name the columns"),
        ("model=cnn", "model"),
        ("vertical.min_matches=1000", "in common"),
        ("vertical.fusion=concat vertical.fusion.masked=true", "masked"),
    ],
)
def test_what_cannot_work_is_said(setting: str, said: str, tmp_path: Path) -> None:
    base = SMALL.replace("model.hidden=[5]", "") if "model=" in setting else SMALL
    with pytest.raises((ConfigError, FederationError), match=said):
        run_parties_in(tmp_path / "run", f"{base} {setting}")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
