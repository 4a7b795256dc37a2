"""Flower's programs know the undocumented settings that they are given."""

import pytest
from flwr.supercore import constant
from flwr.supercore.superexec import run_superexec

from fedapp.flower.superlink_settings import IN_MEMORY, TASK_POLL_INTERVAL


def test_its_launcher_takes_the_poll_interval_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TASK_POLL_INTERVAL, "0.2")
    assert run_superexec._get_task_poll_interval() == 0.2, f"flwr no longer reads {TASK_POLL_INTERVAL}"


def test_its_superlink_knows_the_database_in_memory() -> None:
    assert constant.FLWR_IN_MEMORY_DB_NAME == IN_MEMORY, "the SuperLink would keep its database in a file"
