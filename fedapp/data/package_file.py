"""Data files in installed packages: found without importing those, and refused where they have changed."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from fedapp.common.errors import DataError

__all__ = ["package_file"]


def package_file(option: str, package: str, name: str, sha256: str, extra: str) -> Path:
    """The file `name` of an installed `package`. For messages: `option`, such as data=flights, and the `extra` of this
    project that installs the package. Raises DataError where there is none, and for one that has changed."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"{option}: needs the package {package}; install the extra {extra} (fedapp[{extra}])")
    path = Path(next(iter(spec.submodule_search_locations))) / name
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; install the extra {extra} anew (fedapp[{extra}])") from None
    if found != sha256:
        raise DataError(
            f"{path}: is not the file that {option} knows (SHA-256 {found}, expected {sha256}); install the extra"
            f" {extra} anew (fedapp[{extra}]), or read your own file with data=csv"
        )
    return path
