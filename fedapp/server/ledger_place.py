"""Where the server's own privacy ledger is."""

import hashlib
import os
from pathlib import Path

from fedapp.privacy.ledger import FileLedger

__all__ = ["server_ledger"]


def server_ledger(directory: Path, *, simulated: bool) -> FileLedger:
    """Of a simulation beside the ledgers of its clients, else in the folder of Flower's files, where the SuperLink has
    its register, so that it lasts over runs. Then its head is also in the folder of runs, for the day when Flower's
    folder is lost or put back from an old copy: by the ledger's path, which tells of a lost one, and by its first line,
    which tells of an old copy under any path."""
    if simulated:
        return FileLedger(directory / "ledgers" / "server.jsonl")
    path = Path(os.environ.get("FLWR_HOME", Path.home() / ".flwr")) / "fedapp-client-privacy.jsonl"
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    heads = Path.home() / "fedapp-runs" / ".client-privacy"
    return FileLedger(path, second_head=heads / f"{place}.head", heads_folder=heads)
