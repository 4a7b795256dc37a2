#!/usr/bin/env python3
"""What the model of a finished run says of new examples.

    python scripts/predict.py outputs/<date>/<time> photo.png more-photos/      images: files, or folders of them
    python scripts/predict.py outputs/<date>/<time> patients.csv                a table; a label in it is not looked at
    python scripts/predict.py outputs/<date>/<time> patients.csv --output predictions.csv
    python scripts/predict.py outputs/<date>/<time> bank=a.csv shop=b.csv        task=vertical: a table of each party
    python scripts/predict.py outputs/<date>/<time> --text "to be or not to"     a model of text: the three next words
    python scripts/predict.py outputs/<date>/<time> --interactive                the same while one types; Tab takes one
    python scripts/predict.py outputs/<date>/<time> letters.txt                  the same behind each line of a file

The folder needs to hold the run's config.yaml and model.safetensors, and nothing else: neither the training data nor
a network is used. Of a vertical run it needs parties/, with the part of each party; their tables are joined by the key
columns, in the order of the label party's, and rows without a match are named on the standard error.

Prints a line for each example: name, predicted class and probability with tabs between (for regression name and value).
With --text a line for each of the three most probable words: the word, and its probability.
The exit status is 2, with one message, where something is wrong; then nothing is written.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whatever else is installed

from fedapp.common.errors import FedappError
from fedapp.common.files import write_atomically
from fedapp.inference.complete import Keyboard, typed
from fedapp.inference.predict import Predictions, predict
from fedapp.inference.saved import is_vertical, load_run
from fedapp.inference.saved_parties import files_of, load_parties, predict_parties
from fedapp.learning.training import resolve_device


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path, help="with config.yaml and model.safetensors; or with parties/")
    parser.add_argument(
        "files", type=Path, nargs="*", help="images or folders of images; or CSV files; or PARTY=FILE for each party"
    )
    parser.add_argument("--text", help="of a model of text: what comes next")
    parser.add_argument("--interactive", action="store_true", help="the same while one types, in a terminal")
    parser.add_argument("--output", type=Path, help="write a CSV file, with the probability of every class")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... [auto]")
    parser.add_argument("--best", action="store_true", help="the best model of the run's rounds, not its result")
    options = parser.parse_args(arguments)
    if bool(options.files) + (options.text is not None) + options.interactive != 1:
        parser.error("give files, or --text, or --interactive")
    if options.output is not None and not options.files:
        parser.error("--output: is for files")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        if options.output is not None and not options.output.parent.is_dir():
            raise FedappError(f"--output {options.output}: there is no folder {options.output.parent}")
        if is_vertical(options.run_dir):
            predictions, notes = _predict_parties(options)
        else:
            saved = load_run(options.run_dir, resolve_device(options.device, "--device"), best=options.best)
            if not options.files:
                _complete(Keyboard(saved), options.text)
                return 0
            predictions, notes = predict(saved, options.files), []
        if options.output is not None:
            write_atomically(options.output, predictions.to_csv())
    except (FedappError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if options.output is not None:
        print(f"{len(predictions.names)} predictions: {options.output}")
        return 0
    sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be text
    for line in predictions.lines():
        print(line)
    return 0


def _predict_parties(options: argparse.Namespace) -> tuple[Predictions, list[str]]:
    if options.best:
        raise FedappError("--best: parties keep the parts of a run's result alone")
    if not options.files:
        raise FedappError(f"{options.run_dir}: is of parties with tables; give a file of each")
    if options.device not in ("auto", "cpu"):
        raise FedappError(f"--device {options.device}: a model in parts predicts on the CPU; leave it out")
    saved = load_parties(options.run_dir)
    return predict_parties(saved, files_of(saved, options.files))


def _complete(keyboard: Keyboard, text: str | None) -> None:
    if text is not None:
        for token, chance in keyboard.after(text):
            print(f"{token}\t{chance:.4f}")
        return
    if not sys.stdin.isatty():
        raise FedappError("--interactive: needs a terminal; use --text, or a file")
    import termios
    import tty

    def show(text: str, found: list[tuple[str, float]]) -> None:
        words = "  ".join(f"{token} {chance:.2f}" for token, chance in found)
        line = text[-60:].replace("\n", "\u21b5")  # a model of characters may go on in a new line
        back = f"\x1b[{len(line)}C" if line else ""  # the cursor goes behind what was typed
        print(f"\r\x1b[K{line}\x1b[2m   [{words}]\x1b[0m\r{back}", end="", flush=True)

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        said = typed(keyboard, iter(lambda: sys.stdin.read(1), ""), show)
    except KeyboardInterrupt:
        said = ""
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
    print(f"\r\x1b[K{said}")


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` is no error
    sys.exit(main())
