"""How many cores a process may use."""

import os
from pathlib import Path

import pytest

from fedapp.common.cores import allowed_cores


@pytest.fixture(autouse=True)
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def groups(place: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    for name, content in files.items():
        file = place / "fs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    (place / "own").write_text(own)
    return place / "fs", place / "own"


@pytest.mark.parametrize(
    ("content", "cores"), [("max 100000\n", 8), ("150000 100000\n", 2), ("50000 100000\n", 1), ("9900000 100000\n", 8)]
)
def test_the_quota_of_a_container_counts(tmp_path: Path, content: str, cores: int) -> None:
    assert allowed_cores(*groups(tmp_path, "0::/\n", {"cpu.max": content})) == cores


def test_that_of_an_outer_group_counts_too(tmp_path: Path) -> None:
    files = {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}
    assert allowed_cores(*groups(tmp_path, "0::/a/b\n", files)) == 3


@pytest.mark.parametrize(("quota", "cores"), [("200000\n", 2), ("-1\n", 8)])
def test_version_1(tmp_path: Path, quota: str, cores: int) -> None:
    folder = "cpu,cpuacct/job"
    files = {f"{folder}/cpu.cfs_quota_us": quota, f"{folder}/cpu.cfs_period_us": "100000\n"}
    assert allowed_cores(*groups(tmp_path, "4:cpu,cpuacct:/job\n3:memory:/job\n", files)) == cores


def test_without_any_the_mask_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert allowed_cores(tmp_path / "none", tmp_path / "none") == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert allowed_cores(tmp_path / "none", tmp_path / "none") == 1
