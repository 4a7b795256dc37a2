"""Which code is running: a digest of this app's own files, so that two checkouts never mix unnoticed."""

import hashlib
from functools import lru_cache
from pathlib import Path

from fedapp.common.errors import FederationError

__all__ = ["check_bundle", "code_digest", "code_path"]

ROOT = Path(__file__).resolve().parents[2]


def code_path() -> str:
    """The folder whose `fedapp` and `conf` are running."""
    return str(ROOT)


@lru_cache(maxsize=1)
def code_digest() -> str:
    """SHA-256 over names and contents of `fedapp/**/*.py`, `fedapp/**/*.json` and `conf/**/*.yaml`."""
    digest = hashlib.sha256()
    patterns = ("fedapp/**/*.py", "fedapp/**/*.json", "conf/**/*.yaml")
    for path in sorted(path for pattern in patterns for path in ROOT.glob(pattern)):
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def check_bundle(fab_hash: str) -> None:
    """Refuse to run as the wrong app: Flower installs the bundle of a run in a folder that ends in its hash.

    Raises FederationError if `fedapp` was imported from elsewhere, e.g. because the SuperLink was started in another
    checkout, whose folder then comes first on `sys.path`. An empty hash (no bundle) is accepted.
    """
    if fab_hash and not ROOT.name.endswith(fab_hash[:8]):
        raise FederationError(
            f"this run's app bundle is {fab_hash[:8]}, but fedapp was imported from {ROOT}, which is not that bundle."
            " A local SuperLink that was started in another checkout is still running: end it (pkill -f"
            " flower-superlink) and run again, or use scripts/run.py, which starts its own"
        )
