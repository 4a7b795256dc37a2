"""The config: typed sections, composed by Hydra. The only package that imports Hydra."""

from fedapp.config.committed import choice_of
from fedapp.config.compose import compose, config_sha256, to_yaml
from fedapp.config.config_file import file_overrides
from fedapp.config.nodes import instantiate, option
from fedapp.config.options import options_of
from fedapp.config.overrides import CONF_DIR, by_group, split_overrides
from fedapp.config.same_maths import maths_sha256
from fedapp.config.saved_config import SavedConfig, check_node, read_saved
from fedapp.config.schema import Config
from fedapp.config.typed_text import as_typed

__all__ = [
    "CONF_DIR",
    "Config",
    "SavedConfig",
    "as_typed",
    "by_group",
    "check_node",
    "choice_of",
    "compose",
    "config_sha256",
    "file_overrides",
    "instantiate",
    "maths_sha256",
    "option",
    "options_of",
    "read_saved",
    "split_overrides",
    "to_yaml",
]
