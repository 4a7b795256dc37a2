#!/usr/bin/env python3
"""Attack a federation, without differential privacy and at several ε: does the noise protect as the ledger says?

    python scripts/audit.py                                            experiment=audit, some minutes on two cores
    python scripts/audit.py federation.num_rounds=20 --epsilon 8,1     the same, but for this
    python scripts/audit.py model=cnn privacy.sample_rate=0.2 --candidates 200 --shadows 64 --attacked 64

Membership inference (was this example trained on?) is tried on the updates of one client and on the final model, and
gradient inversion (what did it look like?) on one update of a small batch. Overrides are those of scripts/run.py, of
data, model, task, optimizer, train, privacy, federation.num_clients and federation.num_rounds; without an experiment,
data, model or task among them they change experiment=audit. All clients take part in every round with the same
weight, and every client is given its share of the data anew.

With --unit client, whole clients are attacked instead, under privacy=client_dp: canary clients are in a federation or
not, by a coin, and guessed from its released models. --candidates is their number, --attacked that of federations.

    python scripts/audit.py --unit client
    python scripts/audit.py --unit client secure_aggregation=secaggplus --epsilon 8 --candidates 40 --attacked 8

With --canaries, models of text are searched for lines of random words that some clients have among theirs, once or
more often: their exposure and extraction, without and with DP-SGD (experiment=keyboard_dp unless data is given).

    python scripts/audit.py --canaries
    python scripts/audit.py --canaries federation.num_rounds=10 --epsilon 8 --candidates 5 --copies 1,10

For task=vertical it attacks the labels, as a party without them sees gradients and embeddings: without protection and
with each option of vertical.label_privacy; and the embeddings of single parties, as the label party finds them in what
it is sent, without masks and out of masked sums. The result is in audit.json.

    python scripts/audit.py task=vertical federation.num_rounds=5
    python scripts/audit.py experiment=flights_vertical federation.num_rounds=2

The exit status is 1 if an attack proves a larger ε than the accountant says, 2 if it could not be made. The last line
printed is `audit_dir=<absolute path>`: audit.json, roc-*.png, epsilon.png, inversion.png.
"""

import logging
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]  # this checkout, whatever else is installed

from audits.clients import attack_clients  # noqa: E402
from audits.examples import attack_examples  # noqa: E402
from audits.lines import attack_lines  # noqa: E402
from audits.options import parse  # noqa: E402
from audits.parties import attack_parties  # noqa: E402
from rich.console import Console  # noqa: E402

from fedapp.common.errors import FedappError  # noqa: E402
from fedapp.config import by_group, compose  # noqa: E402


def by_columns(overrides: Sequence[str]) -> bool:
    """Whether the task is one of parties. Other overrides may be for an arm of the audit alone."""
    chosen = [item for item in by_group(overrides) if item.partition("=")[0] in ("task", "experiment")]
    return compose(chosen).task.by_columns


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments, __doc__)
    console = Console()
    logging.disable(logging.INFO)
    now = datetime.now()
    directory = (options.output or Path("outputs", f"{now:%Y-%m-%d}", f"audit-{now:%H-%M-%S-%f}")).resolve()
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise FedappError(f"--output {directory}: is not a new or empty directory")
        if options.canaries:
            code = attack_lines(console, options, directory)
        elif options.unit == "client":
            code = attack_clients(console, options, directory)
        else:
            if not any(line.startswith(("experiment=", "data=", "model=", "task=")) for line in options.overrides):
                options.overrides = ["experiment=audit", *options.overrides]
            attack = attack_parties if by_columns(options.overrides) else attack_examples
            code = attack(console, options, directory)
    except FedappError as error:
        console.print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("stopped", style="bold red")
        return 130
    except Exception:  # 1 would say that an epsilon is refuted
        console.print_exception()
        return 2
    print(f"audit_dir={directory}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
