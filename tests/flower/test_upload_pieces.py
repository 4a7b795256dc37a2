"""Uploads go in pieces of the size that is wanted, as far as Flower reads the variables that say so."""

import os
import subprocess
import sys

from fedapp.flower.upload_pieces import PIECES

READ = """
from flwr.app import Array
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE as size
from flwr.supercore.constant import FLWR_PRIVATE_MAX_CONCURRENT_OBJ_PUSHES as pushes
import numpy as np

array = Array(np.zeros(1 << 19, dtype="<f4"))
print(size, pushes, len(array.slice_array() if hasattr(array, "slice_array") else list(array.children.values())))
"""


def test_flower_reads_the_variables() -> None:
    done = subprocess.run(
        [sys.executable, "-c", READ], env={**os.environ, **PIECES}, capture_output=True, text=True, check=True
    )
    size, pushes, pieces = map(int, done.stdout.split())
    assert str(size) == PIECES["FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE"]
    assert str(pushes) == PIECES["FLWR_PRIVATE_MAX_CONCURRENT_OBJ_PUSHES"]
    assert pieces == 9  # 2 MiB and a header


def test_a_piece_leaves_in_time_over_the_slowest_link_that_is_promised() -> None:
    """Two at once at 140 kbit/s, of which TLS and HTTP take a little, within the 30 s of Flower's client."""
    at_once = int(PIECES["FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE"]) * int(PIECES["FLWR_PRIVATE_MAX_CONCURRENT_OBJ_PUSHES"])
    assert 8 * at_once / 140_000 <= 30
