"""The config: typed sections, composed by Hydra. The only package that imports Hydra."""

from fedapp.config.compose import CONF_DIR, compose, split_overrides, to_yaml
from fedapp.config.nodes import instantiate
from fedapp.config.saved import read_nodes
from fedapp.config.schema import Config

__all__ = ["CONF_DIR", "Config", "compose", "instantiate", "read_nodes", "split_overrides", "to_yaml"]
