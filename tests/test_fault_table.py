"""The README's table of faults is what the command prints."""

import logging
from pathlib import Path

import fault_table
import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_the_table_is_in_the_readme() -> None:
    logging.disable(logging.CRITICAL)
    try:
        printed = fault_table.table()
    finally:
        logging.disable(logging.NOTSET)
    written = README.read_text(encoding="utf-8").splitlines()
    assert [row for row in printed.splitlines() if row not in written] == []
