"""Tests cannot silence each other."""

import logging

import pytest
from kept_logging import kept_logging


def test_what_is_set_of_logging_is_undone(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("flwr")
    with kept_logging():
        log.setLevel(logging.ERROR)
        log.propagate = False
        log.addHandler(logging.NullHandler())
        logging.disable(logging.CRITICAL)
        log.error("not heard")
    log.warning("heard")
    assert [record.message for record in caplog.records] == ["heard"]
    assert not any(isinstance(handler, logging.NullHandler) for handler in log.handlers)


def test_every_test_is_kept(request: pytest.FixtureRequest) -> None:
    assert "_kept_logging" in request.fixturenames
