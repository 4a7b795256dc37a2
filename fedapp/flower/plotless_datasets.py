"""Import Flower Datasets without its plotting, which imports matplotlib and seaborn: 1.1 s for each process.

Needs `flwr_datasets.visualization` to be imported as a whole by flwr_datasets, and by nothing else there (flwr-datasets
0.6). Otherwise flwr_datasets is imported with its plotting.
"""

import sys
from types import ModuleType

from fedapp.flower.names import warn_once

__all__ = ["import_flower_datasets"]

PACKAGE = "flwr_datasets"
PLOTTING = f"{PACKAGE}.visualization"


def import_flower_datasets() -> None:
    """Import `flwr_datasets`. Its plotting can be imported later by its own name."""
    if PACKAGE in sys.modules:
        return
    sys.modules[PLOTTING] = ModuleType(PLOTTING)
    try:
        import flwr_datasets  # type: ignore[import-untyped]
    except (ImportError, AttributeError):
        for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
            del sys.modules[name]
        warn_once(PLOTTING, "flwr_datasets is imported with its plotting, a second later")
        import flwr_datasets  # noqa: F401
    else:
        del sys.modules[PLOTTING]
