"""Flower's robust arithmetic is there, and does what strategies need of it."""

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict

from fedapp.flower.robust_rules import select_multikrum, trim_mean

STRATEGIES = "flwr.serverapp.strategy"


def test_flower_has_the_names(expect_names: Callable[..., None]) -> None:
    expect_names("robust_rules.py", f"{STRATEGIES}.fedtrimmedavg", "trim_mean")
    expect_names("robust_rules.py", f"{STRATEGIES}.multikrum", "select_multikrum")


def test_the_trimmed_mean_leaves_out_the_ends() -> None:
    values = np.array([[100.0], [1.0], [2.0], [3.0], [-100.0]])
    assert trim_mean(values, 0.2).tolist() == [2.0]


def test_multikrum_leaves_out_who_is_far_away() -> None:
    rows = [0.0, 0.1, 0.2, 0.1, 50.0]
    replies = [RecordDict({"arrays": ArrayRecord({"w": Array(np.full(3, row))})}) for row in rows]
    chosen = select_multikrum(replies, 1, 2)
    assert len(chosen) == 2
    assert all(any(one is reply for reply in replies[:4]) for one in chosen)


WITHOUT = f"""
import sys
import flwr.serverapp
for name in ("fedtrimmedavg", "multikrum"):
    sys.modules["{STRATEGIES}." + name] = None
from fedapp.aggregation.rules import Median, TrimmedMean
from fedapp.common.errors import FederationError
import torch
rule = TrimmedMean({{}})
rule.add(0, {{"w": torch.ones(2)}}, 1.0)
try:
    rule.result()
except FederationError as error:
    print(error)
"""


@pytest.mark.slow
def test_without_them_only_their_strategies_fail() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "use strategy=median" in done.stdout
    assert done.stderr.count("as fedapp expects it") == 1
