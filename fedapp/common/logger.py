"""The log of a run: Flower's own, which reaches the person's terminal in a simulation and `flwr run --stream`."""

import logging

__all__ = ["log"]

log = logging.getLogger("flwr").log  # (level, message, *values)
