"""A model as one file that other programs load without fedapp: scaling of inputs and probabilities are inside.

A file counts only after it was loaded back, and says on real examples what the run's model says.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fedapp.common.errors import FedappError, ModelError
from fedapp.common.files import sync_folder, write_atomically
from fedapp.data.pixels import PIXEL_SCALING
from fedapp.data.source import Schema
from fedapp.inference.formats import FORMATS, Run
from fedapp.inference.saved import BATCH, Saved
from fedapp.models.input_layer import InputLayer, TokenLayer

__all__ = ["CHECKED", "TOLERANCE", "examples_to_check", "export", "export_network"]

TOLERANCE = 1e-4  # largest difference, as a share of the largest value if that is above 1 (no probability is)
CHECKED = 128  # so many examples


def export(saved: Saved, kind: str, path: Path, inputs: Tensor) -> float:
    """Write `saved` as `path` and give its largest difference from the run's model on `inputs` (n, *input_shape).

    Above TOLERANCE, or where anything fails, `path` is as it was before. Raises ModelError, opening with `path`.
    """
    dtype = _dtype(saved.schema)

    def expected(inputs: Tensor) -> Tensor:
        return saved.predict(inputs, "examples to check")

    return export_network(saved.predictor, expected, kind, path, inputs, _facts(saved, dtype), dtype)


def export_network(
    network: nn.Module,
    expected: Run,
    kind: str,
    path: Path,
    inputs: Tensor,
    facts: Mapping[str, object],
    dtype: torch.dtype = torch.float32,
) -> float:
    """The same for any network that takes one tensor (N, ...) of `dtype`. `expected`: what it should say; `facts`: what
    is written into the file."""
    if not path.parent.is_dir():
        raise ModelError(f"{path}: there is no folder {path.parent}")
    form = FORMATS[kind]
    form.check_installed()
    inputs = torch.cat([inputs] * 3) if len(inputs) == 1 else inputs  # more than one, to see whether N is free
    wanted = expected(inputs)
    unchecked = path.with_name(path.name + ".unchecked")
    try:
        write_atomically(unchecked, form.convert(network, inputs[:2].to(dtype), facts))
        run = form.load(unchecked)
        batches = [inputs[:1], *torch.split(inputs[1:], BATCH)]
        found = torch.cat([run(batch.to(dtype)) for batch in batches])
        difference = _difference(wanted, found)
        if difference <= TOLERANCE:
            os.replace(unchecked, path)
            sync_folder(path.parent)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written: {error.strerror}") from None
    except Exception as error:  # each exporter has its own dozen kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{path}: this network cannot be exported as {kind}: {reason}") from error
    finally:
        unchecked.unlink(missing_ok=True)
    return difference


def examples_to_check(saved: Saved, files: Sequence[Path]) -> tuple[Tensor, str]:
    """Inputs (n, *input_shape), n up to CHECKED, and what they are: those in `files`; else the data source's own test
    data; else random ones. Raises DataError for `files` that do not fit."""
    if files:
        inputs = torch.cat([saved.source.unlabelled(path)[0] for path in files])[:CHECKED]
        return inputs, f"{len(inputs)} examples of {', '.join(str(path) for path in files)}"
    try:
        test = saved.source.test()
    except FedappError:  # as on a machine that does not have the data
        test = None
    if test is not None and len(test):
        inputs = test.inputs[:CHECKED]
        return inputs, f"{len(inputs)} examples of the run's test data"
    return _random_inputs(saved), f"{CHECKED} random inputs, since the run's test data is not here (see --check)"


def _random_inputs(saved: Saved) -> Tensor:
    """Of the schema's shape, spread as its scaling expects, with some missing values where it imputes."""
    shape, random = (CHECKED, *saved.schema.input_shape), torch.Generator().manual_seed(0)
    if _dtype(saved.schema) is torch.uint8:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
    layer = saved.predictor.model.get_submodule("input")
    assert isinstance(layer, InputLayer | TokenLayer)
    return layer.random_inputs(shape, random)


def _dtype(schema: Schema) -> torch.dtype:
    """Images are uint8 (0..255) where they are scaled as such; other inputs are as the schema says."""
    return torch.uint8 if schema.scaling == PIXEL_SCALING else schema.input_dtype


def _facts(saved: Saved, dtype: torch.dtype) -> dict[str, object]:
    """What a program needs to know to use the file, written into it."""
    text = saved.schema.text
    return {
        **({} if text is None else {"tokens": list(text.tokens), "padding": text.padding, "begin": text.begin}),
        "input_shape": list(saved.schema.input_shape),
        "input_dtype": str(dtype).removeprefix("torch."),
        "features": list(saved.schema.features),
        "classes": list(saved.schema.classes),
        "labels": list(saved.schema.labels),
        "model_sha256": saved.sha256,
    }


def _difference(expected: Tensor, found: Tensor) -> float:
    """The largest difference, relative to the largest value if that is above 1."""
    if expected.shape != found.shape:
        raise ValueError(f"it gives {tuple(found.shape)}, not {tuple(expected.shape)}")
    scale = max(1.0, float(expected.abs().max()))
    return float((expected - found).abs().max()) / scale
