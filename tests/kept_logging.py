"""What a test, or a script that it calls, sets of logging ends with the test: the next one would read an empty log."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = ("flwr", "fedapp")


@contextmanager
def kept_logging() -> Iterator[None]:
    disabled = logging.root.manager.disable
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.level, logger.propagate, logger.handlers[:]) for logger in loggers]
    try:
        yield
    finally:
        logging.disable(disabled)
        for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
            logger.setLevel(level)
            logger.propagate, logger.handlers[:] = propagate, handlers
