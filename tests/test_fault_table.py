"""The table of faults in docs/robustness.md is what the command prints."""

import logging
from pathlib import Path

import fault_table
import pytest

PAGE = Path(__file__).parents[1] / "docs" / "robustness.md"


@pytest.mark.slow
def test_the_table_is_in_the_documentation() -> None:
    logging.disable(logging.CRITICAL)
    printed = fault_table.table()
    written = PAGE.read_text(encoding="utf-8").splitlines()
    assert [row for row in printed.splitlines() if row not in written] == []
