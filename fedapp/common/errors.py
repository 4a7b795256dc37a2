"""Errors that a person can act on: each names the key or file, the value and what would be right."""

__all__ = ["ConfigError", "DataError", "FedappError", "FederationError", "ModelError"]


class FedappError(Exception):
    """A fault with a remedy. Shown as one message, without a traceback."""


class ConfigError(FedappError):
    """A config value that cannot work; the message opens with the config key."""


class DataError(FedappError):
    """Data that does not fit; the message opens with the file or data set. Holds no data value
    but the offending one, since clients send it to the server."""


class FederationError(FedappError):
    """SuperNodes or replies that are not what a round needs."""


class ModelError(FedappError):
    """A finished run or an exported model that cannot be used; the message opens with its path."""
