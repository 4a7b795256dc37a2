#!/usr/bin/env python3
"""The model of a finished run as one file that other programs load without fedapp.

    python scripts/export.py outputs/<date>/<time> --format torchscript
    python scripts/export.py outputs/<date>/<time> --format onnx --output model.onnx --check more-photos/

Input: images (N, channels, height, width), uint8 of 0..255 (digits: float32 of 0..16), or a table's features (N,
features) float32 in the order that the file names, categories one-hot, missing values NaN where the run imputes.
Scaling is inside. Output: probabilities (N, classes); for regression values (N, 1). N is free. The file names
input_shape, input_dtype, features, classes and model_sha256 (that of the run's summary.json):

    facts = {"fedapp.json": ""}
    model = torch.jit.load("model.torchscript", _extra_files=facts)     # facts["fedapp.json"] is JSON
    probabilities = model(torch.zeros(1, 3, 160, 160, dtype=torch.uint8))

    session = onnxruntime.InferenceSession("model.onnx")
    facts = session.get_modelmeta().custom_metadata_map
    probabilities = session.run(None, {"input": np.zeros((1, 3, 160, 160), np.uint8)})[0]

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
from fedapp.inference.formats import FORMATS
from fedapp.inference.saved import load_run


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path, help="with config.yaml and model.safetensors")
    parser.add_argument("--format", choices=list(FORMATS), required=True)
    parser.add_argument("--output", type=Path, help="[<run_dir>/model.torchscript or model.onnx]")
    parser.add_argument("--check", type=Path, nargs="+", default=(), help="files to compare on, as for predict.py")
    parser.add_argument("--best", action="store_true", help="the best model of the run's rounds, not its result")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    path = options.output or options.run_dir / f"model{FORMATS[options.format].suffix}"
    try:
        saved = load_run(options.run_dir, best=options.best)
        inputs, what = examples_to_check(saved, options.check)
        difference = export(saved, options.format, path, inputs)
    except (FedappError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"largest difference from the run's model: {difference:.2g} (at most {TOLERANCE:g}), on {what}")
    if not difference <= TOLERANCE:
        print(f"error: {path}: says something else than the run's model, so it was not kept", file=sys.stderr)
        return 1
    print(f"{options.format}: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
