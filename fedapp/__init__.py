"""fedapp: federated learning in PyTorch for data that must not leave its owner, as a Flower app."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedapp.launch.notebook import RunResult, run

__all__ = ["RunResult", "run"]


def __getattr__(name: str) -> Any:
    """`from fedapp import run`, without an import for whoever does not ask for it."""
    if name in __all__:
        from fedapp.launch import notebook

        return getattr(notebook, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
