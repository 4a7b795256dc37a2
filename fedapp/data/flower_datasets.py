"""Flower Datasets without its plotting, with which it imports matplotlib and seaborn: a second for every process."""

import sys
from types import ModuleType

__all__ = ["import_flower_datasets"]

PLOTTING = "flwr_datasets.visualization"


def import_flower_datasets() -> None:
    """Import `flwr_datasets`. Its plotting can be imported later by its own name."""
    if "flwr_datasets" in sys.modules:
        return
    sys.modules[PLOTTING] = ModuleType(PLOTTING)
    try:
        import flwr_datasets  # type: ignore[import-untyped]  # noqa: F401
    finally:
        del sys.modules[PLOTTING]
