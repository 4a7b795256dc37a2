"""Where the server's own privacy ledger is."""

import hashlib
import os
from pathlib import Path

from fedapp.privacy.ledger import FileLedger

__all__ = ["server_ledger"]


def server_ledger(directory: Path, *, simulated: bool) -> FileLedger:
    """Of a simulation beside the ledgers of its clients, else in the folder of Flower's files, where the SuperLink has
    its register, so that it lasts over runs. Then its head is also in the folder of runs, by the ledger's path, for the
    day when Flower's folder is lost or put back from an old copy."""
    if simulated:
        return FileLedger(directory / "ledgers" / "server.jsonl")
    path = Path(os.environ.get("FLWR_HOME", Path.home() / ".flwr")) / "fedapp-client-privacy.jsonl"
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return FileLedger(path, second_head=Path.home() / "fedapp-runs" / ".client-privacy" / f"{place}.head")
