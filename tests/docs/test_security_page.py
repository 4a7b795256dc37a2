"""docs/security.md: each promise names a test that is there."""

import ast
import re

from documentation import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def promises() -> dict[str, list[str]]:
    """By promise, the tests that its row names."""
    table = PAGE.split("<!-- promises -->")[1].split("<!-- /promises -->")[0]
    rows = [line.strip("| ").split(" | ") for line in table.strip().splitlines()[2:]]
    return {promise: re.findall(r"`(tests/[^`]+)`", tests) for promise, tests in rows}


def test_each_promise_names_a_test_that_is_there() -> None:
    assert len(promises()) >= 15
    for promise, tests in promises().items():
        assert tests, promise
        for test in tests:
            file, _, name = test.partition("::")
            found = {
                node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)
            }
            assert not name or name in found, test
            assert any(function.startswith("test_") for function in found), test


def test_no_promise_is_without_its_test() -> None:
    """A row with a promise and an empty cell would be one."""
    table = PAGE.split("<!-- promises -->")[1].split("<!-- /promises -->")[0].strip().splitlines()
    assert all(line.startswith("| ") and line.count("`tests/") >= 1 for line in table[2:])


def test_a_report_has_somewhere_to_go() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert "private vulnerability reporting" in text
    assert not re.search(r"[\w.]+@[\w.]+\.\w+", text)  # no address that nobody reads
