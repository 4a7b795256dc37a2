"""Which versions of which packages a run is the result of."""

from importlib.metadata import version

__all__ = ["versions"]

PACKAGES = ("fedapp", "flwr", "torch", "torchvision", "hydra-core", "opacus", "flwr-datasets", "numpy")


def versions() -> dict[str, str]:
    """Installed versions of what a result depends on; fedapp's own is absent where only its bundle is there."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except ModuleNotFoundError:
            continue
    return found
