"""A keyboard by the model of a run: suggestions behind a text and while one types."""

import json
import math
import os
import pty
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from commands import ROOT
from every_task import LANGUAGE
from in_process import run_in_process
from saved_runs import leave

from fedapp.common.errors import ModelError
from fedapp.inference.complete import Keyboard, typed
from fedapp.inference.saved import load_run
from scripts import predict as command

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    quick = "federation.num_rounds=12 federation.num_clients=20 optimizer.lr=1.0 train.batch_size=8"
    return run_in_process(tmp_path_factory.mktemp("language") / "run", f"{LANGUAGE} {quick}")


@pytest.fixture(scope="module")
def keyboard(run: Path) -> Keyboard:
    return Keyboard(load_run(run))


def test_suggestions_are_the_models_most_probable_words(keyboard: Keyboard) -> None:
    found = keyboard.after("the old man likes")
    words, inputs = keyboard.task.text, torch.zeros(1, 8, dtype=torch.int64)
    inputs[0, :5] = torch.tensor([words.begin, *words.encode("the old man likes")])
    chances = keyboard.saved.predictor(inputs)[0, 4]
    chances[:4] = -1
    best = chances.topk(3)
    assert [token for token, _ in found] == [words.tokens[index] for index in best.indices]
    assert [chance for _, chance in found] == pytest.approx(best.values.tolist())
    assert all(0 < chance < 1 for _, chance in found)


def test_only_what_fits_is_suggested_for_a_word_that_has_begun(keyboard: Keyboard) -> None:
    whole = keyboard.completing("the old ")
    begun = keyboard.completing("the old m")
    assert whole == keyboard.after("the old ")
    assert len(begun) == 3
    assert all(token.startswith("m") for token, _ in begun)
    assert keyboard.completing("the old qzx") == []
    assert keyboard.accept("the old m") == f"the old {begun[0][0]} "
    assert keyboard.accept("the old qzx") == "the old qzx"


def test_keys_are_typed_erased_and_completed(keyboard: Keyboard) -> None:
    shown: list[str] = []
    said = typed(keyboard, iter("a cx\x7f\t\rignored"), lambda text, _: shown.append(text))
    assert shown[:5] == ["", "a", "a ", "a c", "a cx"]
    assert said == shown[-1] == keyboard.accept("a c") == f"a {keyboard.completing('a c')[0][0]} "


def test_characters_are_typed_as_they_are(tmp_path: Path) -> None:
    """A space is shown in quotes, and typed without them."""
    leave(tmp_path / "run", LANGUAGE.replace("data.vocabulary_size=2500", "data.vocabulary=characters"))
    keyboard = Keyboard(load_run(tmp_path / "run"))
    text, shown = keyboard.task.text, list[tuple[str, str]]()
    said = typed(keyboard, iter("a\t\t\r"), lambda now, found: shown.append((now, found[0][0])))
    assert [len(now) for now, _ in shown] == [0, 1, 2, 3]
    assert said == shown[-1][0]
    for (now, first), (after, _) in pairwise(shown[1:]):
        assert first in (after[-1], repr(after[-1]))
        assert after[:-1] == now
    assert text.continued("a", text.encode(" ")[0]) == "a "
    assert keyboard.task.shown(text.encode(" ")[0]) == "' '"


def test_the_command_prints_three_words(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert command.main([str(run), "--text", "the old man likes"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 3
    chances = [float(chance) for _, chance in lines]
    assert chances == sorted(chances, reverse=True)
    letters = tmp_path / "letters.txt"
    letters.write_text("the old man likes\nshe\n")
    assert command.main([str(run), str(letters)]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == ["1", "2"]
    assert rows[0][1::2] == [word for word, _ in lines]


@pytest.mark.parametrize(
    ("arguments", "code"), [([], 2), (["--text", "a", "b.txt"], 2), (["--text", "a", "--interactive"], 2)]
)
def test_one_way_to_ask_is_needed(run: Path, arguments: list[str], code: int) -> None:
    with pytest.raises(SystemExit) as raised:
        command.main([str(run), *arguments])
    assert raised.value.code == code


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    other = run_in_process(
        tmp_path / "run", "federation.num_rounds=1 federation.num_clients=3 model=logistic_regression"
    )
    with pytest.raises(ModelError, match="--text: the model of this run is one of classification"):
        Keyboard(load_run(other))


def test_in_a_terminal_one_types(run: Path) -> None:
    here, there = pty.openpty()
    script = [sys.executable, str(ROOT / "scripts" / "predict.py"), str(run), "--interactive"]
    process = subprocess.Popen(script, stdin=there, stdout=subprocess.PIPE, bufsize=0)
    assert process.stdout is not None
    first = process.stdout.read(4)  # what is typed before it listens is dropped
    os.write(here, b"the old m\t\n")
    out = (first + process.communicate(timeout=120)[0]).decode()
    os.close(here)
    os.close(there)
    assert process.returncode == 0
    last = out.splitlines()[-1].rpartition("\x1b[K")[2]
    assert last.startswith("the old m")
    assert last.endswith(" ")


def test_perplexity_is_that_of_a_model_that_has_learnt(run: Path) -> None:
    found = json.loads((run / "summary.json").read_text())
    assert 1 < found["test_perplexity"] < 200
    assert found["test_token_accuracy"] <= found["test_token_top_3"] <= 1
    assert math.isfinite(found["test_loss"])
