"""An option's node gives an object of the option's kind, or the run does not start."""

import pytest

from fedapp.common.errors import ConfigError
from fedapp.config import option, options_of
from fedapp.updates.step import UpdateStep


def test_an_object_of_another_kind_is_refused_by_key_and_kind() -> None:
    assert option("compression", options_of("compression")["quantise"], UpdateStep)
    with pytest.raises(
        ConfigError, match=r"^compression\._target_=collections\.Counter: is no fedapp\.updates\.step\.UpdateStep$"
    ):
        option("compression", {"_target_": "collections.Counter"}, UpdateStep)
