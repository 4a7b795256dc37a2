"""What Flower's commands print is what fedapp reads."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module

import pytest
from flwr.cli.run_utils import format_runs
from flwr.common.constant import Status, SubStatus
from flwr.supercore.error import catalog
from flwr.supercore.run import Run, RunStatus
from flwr.supernode import fleet_http_connection

from fedapp.flower import printed
from fedapp.flower.printed import connection_error, failure, run_status, started_run

PENDING = "2026-11-25T12:00:00+00:00"


def source(module: str) -> str:
    return inspect.getsource(import_module(module))


def test_flower_says_that_a_run_has_started() -> None:
    text = 'f"Successfully started run {res.run_id}"'
    assert text in source("flwr.cli.run.run"), f"`flwr run` no longer prints {text}"
    assert started_run("Building...\nSuccessfully started run 123 in federation x\n") == "123"
    assert started_run("Error: no SuperLink at 127.0.0.1:39091") is None


def test_another_text_with_a_runs_number_is_taken_for_it(warned: Callable[[], list[str]]) -> None:
    for _ in range(2):
        assert started_run("✅ Started the run with ID 12345678901234567890\n") == "12345678901234567890"
    assert len(warned()) == 1
    assert "12345678901234567890" in warned()[0]


@pytest.mark.parametrize("ended", [SubStatus.COMPLETED, SubStatus.FAILED])
def test_flower_lists_a_run_with_its_status(ended: str) -> None:
    run = replace(Run.create_empty(7), status=RunStatus(Status.FINISHED, ended, "why"), pending_at=PENDING)
    listing = import_module("flwr.cli.ls")._to_json(format_runs([run], PENDING))
    status, details = run_status(listing)
    assert (status == printed.COMPLETED) == (ended == SubStatus.COMPLETED)
    assert details == "why"


@pytest.mark.parametrize("listing", ["", "no JSON", '{"success": false}', '{"runs": []}', '{"runs": [{}]}'])
def test_a_listing_without_a_run_is_an_error(listing: str) -> None:
    with pytest.raises((ValueError, LookupError)):
        run_status(listing)


def test_flower_puts_words_before_what_went_wrong() -> None:
    assert f'f"{printed.FAILED_SIMULATION}{{str(ex)}}"' in source("flwr.simulation.app")
    assert failure("Simulation failed with exception: no memory") == "no memory"
    assert failure("no memory") == "no memory"


def test_a_supernode_says_why_it_cannot_connect() -> None:
    text = f'"{printed.FAILED_CONNECTION} to the SuperLink.\\n" + message'
    assert text in inspect.getsource(fleet_http_connection), f"flower-supernode no longer prints {text}"
    assert printed.NOT_ADMITTED in inspect.getsource(catalog), f"it no longer prints {printed.NOT_ADMITTED}"
    lines = ["INFO: starting", "Failed to initialize the connection to the SuperLink.", "[code: 1] the reason"]
    assert connection_error(lines) == "[code: 1] the reason"
    assert connection_error(lines[:1]) is None
    assert connection_error(lines[:2]) is None
