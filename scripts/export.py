#!/usr/bin/env python3
"""The model of a finished run as one file that other programs load without fedapp.

    python scripts/export.py outputs/<date>/<time> --format torchscript
    python scripts/export.py outputs/<date>/<time> --format onnx --output model.onnx --check more-photos/
    python scripts/export.py outputs/<date>/<time> --format onnx --party shop       one party's part (task=vertical)
    python scripts/export.py outputs/<date>/<time> --format peft --merged           adapters of a language model
    python scripts/export.py <keep-path>/vertical/<run> --format onnx               a device's own part

Input: images (N, channels, height, width), uint8 of 0..255 (digits: float32 of 0..16), or a table's features (N,
features) float32 in the order that the file names, categories one-hot, missing values NaN where the run imputes.
Scaling is inside. Output: probabilities (N, classes); for regression values (N, 1); of the next token: indices of
tokens (N, T) int64, padded at the end, to probabilities (N, T, tokens), with the tokens in the file. N is free. The
file names input_shape, input_dtype, features, classes and model_sha256 (that of the run's summary.json):

    facts = {"fedapp.json": ""}
    model = torch.jit.load("model.torchscript", _extra_files=facts)     # facts["fedapp.json"] is JSON
    probabilities = model(torch.zeros(1, 3, 160, 160, dtype=torch.uint8))

    session = onnxruntime.InferenceSession("model.onnx")
    facts = session.get_modelmeta().custom_metadata_map
    probabilities = session.run(None, {"input": np.zeros((1, 3, 160, 160), np.uint8)})[0]

Of a part (task=vertical) two kinds of files are written into its folder, or into the folder --output: bottom, from the
party's features (N, features) to embeddings (N, embedding); and at the label party top, from fused embeddings to
probabilities. Fused is the sum of all parties' embeddings, or these side by side, as the file says (fusion, fused). An
entity that a party does not have has the embedding 0.

Of a language model with adapters (model.trainable=lora), peft writes a folder with adapter_config.json and
adapter_model.safetensors, for peft.PeftModel.from_pretrained on the network that the run began with; with --merged one
with config.json and model.safetensors, for transformers. Beside them tokenizer.json, where the run has one, and of a
classifier head.safetensors, the linear layer on the pooled network. Here probabilities differ by 1e-5 at most.

The file is loaded back and compared with the run's model: on the examples in --check; else on the run's test data;
else, where that is not here, on random inputs, and it says so. The exit status is 1, and no file is left, if
probabilities differ by more than 1e-4 (values: by that share of the largest, if it is above 1), and 2 if it could not
be made.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whatever else is installed

from fedapp.common.errors import FedappError
from fedapp.inference.export import TOLERANCE, examples_to_check, export
from fedapp.inference.export_adapters import ADAPTER_TOLERANCE, export_adapters
from fedapp.inference.export_part import export_part, inputs_to_check, is_part, part_in
from fedapp.inference.formats import FORMATS
from fedapp.inference.saved import is_vertical, load_run


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path, help="with config.yaml and model.safetensors")
    parser.add_argument("--format", choices=[*FORMATS, "peft"], required=True)
    parser.add_argument("--merged", action="store_true", help="with --format peft: the whole network")
    parser.add_argument(
        "--output", type=Path, help="[<run_dir>/model.torchscript, model.onnx or adapters]; of a part a folder"
    )
    parser.add_argument("--check", type=Path, nargs="+", default=(), help="files to compare on, as for predict.py")
    parser.add_argument("--best", action="store_true", help="the best model of the run's rounds, not its result")
    parser.add_argument("--party", help="whose part, of a run with task=vertical")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        in_parts = is_part(options.run_dir) or is_vertical(options.run_dir)
        found = _export_part(options) if in_parts else _export(options)
    except (FedappError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    tolerance = ADAPTER_TOLERANCE if options.format == "peft" else TOLERANCE
    for path, (difference, what) in found.items():
        print(f"largest difference from the run's model: {difference:.2g} (at most {tolerance:g}), on {what}")
        if not difference <= tolerance:
            print(f"error: {path}: says something else than the run's model, so it was not kept", file=sys.stderr)
            return 1
        print(f"{options.format}: {path}")
    return 0


def _export(options: argparse.Namespace) -> dict[Path, tuple[float, str]]:
    """By file, the largest difference, and on what."""
    if options.party is not None:
        raise FedappError(f"--party {options.party}: {options.run_dir} is of no vertical run; its model is one")
    if options.merged and options.format != "peft":
        raise FedappError(f"--merged: is of --format peft; {options.format} has the whole model in any case")
    saved = load_run(options.run_dir, best=options.best)
    inputs, what = examples_to_check(saved, options.check)
    if options.format == "peft":
        folder = options.output or options.run_dir / ("merged" if options.merged else "adapters")
        return {folder: (export_adapters(saved, folder, inputs, merged=options.merged), what)}
    path = options.output or options.run_dir / f"model{FORMATS[options.format].suffix}"
    return {path: (export(saved, options.format, path, inputs), what)}


def _export_part(options: argparse.Namespace) -> dict[Path, tuple[float, str]]:
    if options.format == "peft":
        raise FedappError("--format peft: is of language models with adapters, not of parts")
    if options.best:
        raise FedappError("--best: parties keep the parts of a run's result alone")
    part, folder = part_in(options.run_dir, options.party)
    inputs, what = inputs_to_check(part, options.check)
    return export_part(part, options.format, options.output or folder, inputs, what)


if __name__ == "__main__":
    sys.exit(main())
