"""The values of what travels, also of vectors of bytes, which have no NumPy header."""

from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord

from fedapp.wire.records import arrays_to_state


def values_of(array: Array) -> np.ndarray[Any, Any]:
    """A copy."""
    return np.asarray(arrays_to_state(ArrayRecord({"": array}))[""].numpy())
