"""Exported models of text say what the run's model says, of texts that the export was not checked on."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from every_task import LANGUAGE
from language_models import ADAPTED, CAUSAL, made_of
from safetensors.torch import load_file, save_file
from saved_runs import leave, load_script
from torch import Tensor

from fedapp.data.text.token_windows import prompt
from fedapp.inference.complete import Keyboard
from fedapp.inference.formats import FACTS, FORMATS
from fedapp.inference.saved import Saved, load_run

pytestmark = pytest.mark.slow

TWO_LAYERS = f"{LANGUAGE} model.layers=2 model.tied=false model.dropout=0.3"
TRANSFORMER = LANGUAGE.replace("model=lstm model.embedding=8 model.hidden=12", "model=transformer_lm")
NEXT_TOKEN = {
    "lstm": LANGUAGE,
    "lstm of two layers": TWO_LAYERS,
    "transformer_lm": TRANSFORMER,
    "gpt2": CAUSAL,
    "llama": made_of(CAUSAL, "llama"),
}
TEXTS = ("the old man likes", "she", "no no no no no no no no no no", "xyzzy and the")  # short, one word, cut, unknown


def exported(folder: Path, overrides: str, kind: str) -> tuple[Saved, Callable[[Tensor], Tensor], dict[str, object]]:
    """The run, what its exported file computes, and the facts in that."""
    leave(folder / "run", overrides)
    path = folder / "run" / "model.safetensors"
    tensors = load_file(path)  # of small values, by which no token would be much more probable than another
    save_file(
        {
            name: value * 8 if value.is_floating_point() and value.dim() > 1 else value
            for name, value in tensors.items()
        },
        path,
    )
    assert load_script("export").main([str(folder / "run"), "--format", kind]) == 0
    path = folder / "run" / f"model{FORMATS[kind].suffix}"
    return load_run(folder / "run"), FORMATS[kind].load(path), facts_of(path, kind)


def facts_of(path: Path, kind: str) -> dict[str, object]:
    if kind == "onnx":
        from onnxruntime import InferenceSession

        found = InferenceSession(str(path)).get_modelmeta().custom_metadata_map
        return {"tokens": json.loads(found["tokens"]), "padding": json.loads(found["padding"])}
    extra = {FACTS: ""}
    torch.jit.load(str(path), _extra_files=extra)  # type: ignore[no-untyped-call]
    return dict(json.loads(extra[FACTS]))


@pytest.mark.parametrize("kind", list(FORMATS))
@pytest.mark.parametrize("name", list(NEXT_TOKEN))
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
def test_the_next_tokens_are_those_of_the_run(tmp_path: Path, name: str, kind: str) -> None:
    saved, run, facts = exported(tmp_path, NEXT_TOKEN[name], kind)
    keyboard = Keyboard(saved)
    words, length = keyboard.task.text, keyboard.task.schema.input_shape[0]
    assert facts["tokens"] == list(words.tokens)
    inputs = torch.stack([prompt(words, length, text) for text in TEXTS])
    expected = saved.predict(inputs, "texts")
    assert float((expected[0, 0] - expected[2, 3]).abs().max()) > 1e-4  # or a constant would pass
    for count in (1, 3, 4):
        assert torch.allclose(run(inputs[:count]), expected[:count], rtol=0, atol=1e-5)
    for text, row, found in zip(TEXTS, inputs, run(inputs), strict=True):
        last = int((row != facts["padding"]).sum()) - 1
        chances = {token: float(chance) for token, chance in zip(words.tokens, found[last], strict=True)}
        assert keyboard.after(text) == [
            (token, pytest.approx(chances[token], abs=1e-5)) for token, _ in keyboard.after(text)
        ]


@pytest.mark.parametrize("kind", list(FORMATS))
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
def test_classes_are_those_of_the_run_however_long_a_text_is(tmp_path: Path, kind: str) -> None:
    saved, run, _ = exported(tmp_path, ADAPTED, kind)
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(TEXTS))
    inputs, _ = saved.source.unlabelled(lines)
    expected = saved.predict(inputs, "texts")
    assert torch.allclose(run(inputs), expected, rtol=0, atol=1e-5)
    assert float((expected[0] - expected[1]).abs().max()) > 1e-4
