"""Hydra's composition for tests, which ask for hundreds of configs: files are read once for each choice of groups.

A single composition takes Hydra an eighth of a second, nearly all of it for the groups; single values are set at its
end. Here the result for the groups alone is kept, and values are set on a copy by Hydra's own code. What is not a plain
group or value, and every error, is left to Hydra itself.
"""

import copy
from collections.abc import Callable, Sequence
from functools import lru_cache

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedapp.config.overrides import groups

__all__ = ["quick"]

Compose = Callable[[str, list[str]], DictConfig]


def quick(hydra_compose: Compose) -> Compose:
    """`hydra_compose` with a memory."""
    parser = OverridesParser.create()
    parse = lru_cache(maxsize=1024)(parser.parse_override)

    @lru_cache(maxsize=512)
    def of_groups(name: str, choices: tuple[str, ...]) -> DictConfig:
        return hydra_compose(name, list(choices))

    def composed(name: str, overrides: Sequence[str] = ()) -> DictConfig:
        try:
            values = [item for item in map(parse, overrides) if _is_value(item)]
            lines = {item.input_line for item in values}
            config = copy.deepcopy(of_groups(name, tuple(line for line in overrides if line not in lines)))
            OmegaConf.set_struct(config, True)
            ConfigLoaderImpl._apply_overrides_to_config(values, config)
        except (HydraException, OmegaConfBaseException, ValueError):
            return hydra_compose(name, list(overrides))
        return config

    return composed


def _is_value(override: Override) -> bool:
    """Whether it sets one key's value, rather than choose an option of a group or add or delete a key."""
    key = override.key_or_group
    plain = not (override.is_add() or override.is_force_add() or override.is_delete() or override.is_sweep_override())
    return plain and override.package is None and "/" not in key and key not in groups()
