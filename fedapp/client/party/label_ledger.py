"""What the label party has spent of its labels' privacy: a line for each set of randomised labels that it trained on.

Under label differential privacy all that anybody sees of a training follows from the randomised labels, so that these
cost their epsilon once, however long they are trained on. Others for the same labels cost it again.
"""

import json
import os
import time
from pathlib import Path

from torch import Tensor

from fedapp.common.errors import ConfigError, DataError
from fedapp.common.files import sync_folder
from fedapp.common.state_digest import state_sha256

__all__ = ["LABEL_LEDGER", "spend_labels"]

LABEL_LEDGER = "label-ledger.jsonl"


def spend_labels(folder: Path, drawn: Tensor, epsilon: float, most: float | None) -> float:
    """Write `drawn` into the ledger in `folder`, unless they are there, before they are trained on. Returns epsilon
    over all of it. Raises ConfigError where that is more than `most`, and nothing is written; DataError for a ledger
    that cannot be read."""
    path, digest = folder / LABEL_LEDGER, state_sha256({"labels": drawn})
    try:
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        spent = {str(line["labels"]): float(line["epsilon"]) for line in map(json.loads, lines)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: the ledger of label privacy cannot be read: {error}") from None
    if digest in spent:
        return sum(spent.values())
    total = sum(spent.values()) + epsilon
    if most is not None and total > most:
        raise ConfigError(
            f"max-label-epsilon: these labels would have cost epsilon {total:g} with this run, and this SuperNode's"
            f" operator allows {most:g}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"labels": digest, "epsilon": epsilon, "time": time.time()}) + "\n"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)
    return total
