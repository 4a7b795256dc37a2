"""Errors that a person can act on: each names the key or file, the value and what would be right."""

from typing import ClassVar

__all__ = [
    "ConfigError",
    "DataError",
    "DeviceError",
    "FedappError",
    "FederationError",
    "ModelError",
    "NodeConfigError",
    "told",
]


class FedappError(Exception):
    """A fault with a remedy. Shown as one message, without a traceback.

    `abroad`: what a device says of it to whoever runs the server, in place of the text; None: the text, which then
    holds nothing but what came in the message and in the app's own bundle.
    """

    abroad: ClassVar[str | None] = None


def told(error: FedappError, on_device: bool) -> str:
    """What the server is told of an error: all of it in a simulation, where data and files are the server's own."""
    return error.abroad if on_device and error.abroad is not None else str(error)


class ConfigError(FedappError):
    """A config value that cannot work; the message opens with the config key."""


class DeviceError(ConfigError):
    """A config value that cannot work on this machine: the text may hold what only this machine knows."""

    abroad = "the run's config does not work on this device (see the client's log)"


class NodeConfigError(ConfigError):
    """A setting of the SuperNode's operator that cannot work; the message opens with its key."""

    abroad = "its node-config does not go with this run (see the client's log)"


class DataError(FedappError):
    """Data that does not fit; the message opens with the file or data set, and may hold the offending value."""

    abroad = "its data does not fit the task (see the client's log)"


class FederationError(FedappError):
    """SuperNodes or replies that are not what a round needs."""


class ModelError(FedappError):
    """A finished run or an exported model that cannot be used; the message opens with its path."""

    abroad = DeviceError.abroad
