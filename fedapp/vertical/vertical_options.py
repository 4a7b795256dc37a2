"""The options of a vertical run, and what its config must not ask for."""

import re
from dataclasses import asdict, dataclass

from fedapp.common.errors import ConfigError
from fedapp.common.nested import leaves
from fedapp.config import Config, compose, instantiate, option
from fedapp.data.party_table import PartySource
from fedapp.learning.build import build_source, check_optimizer
from fedapp.learning.build_task import build_task
from fedapp.learning.task import Task
from fedapp.vertical.fusion import Fusion
from fedapp.vertical.label_privacy import LabelPrivacy
from fedapp.vertical.networks import bottom_network

__all__ = ["VerticalOptions", "vertical_options"]

# What a vertical run reads of the config; all else must be as it is by default, since it would have no effect.
READ = (
    *("task", "data", "model", "partition", "optimizer", "client_lr", "vertical"),
    *(f"federation.{key}" for key in ("num_rounds", "max_failed_rounds", "wait_timeout", "round_timeout")),
    *(f"federation.{key}" for key in ("target_accuracy", "patience", "patience_metric", "min_delta", "max_seconds")),
    *("train.local_epochs", "train.batch_size"),
    *(f"run.{key}" for key in ("seed", "device", "output_dir", "resume", "checkpoint_every", "engine")),
    *("run.num_supernodes", "run.threads_per_client"),
)


@dataclass(frozen=True)
class VerticalOptions:
    """What server and parties both make of the config. `label_party`: the name of the party with the labels."""

    source: PartySource
    task: Task
    fusion: Fusion
    label_privacy: LabelPrivacy
    label_party: str

    @property
    def names(self) -> tuple[str, ...]:
        """All parties, in the order of their names."""
        return tuple(sorted(self.source.party_names))


def vertical_options(config: Config) -> VerticalOptions:
    """Raises ConfigError for what cannot work whoever the parties are."""
    _check_unread(config)
    if config.vertical.predict is not None and not re.fullmatch("[0-9a-f]{16}", config.vertical.predict):
        raise ConfigError(
            f"vertical.predict={config.vertical.predict}: must be the name of a run, 16 letters and digits: `run` in"
            " its summary.json, and the folder in vertical/ of each device's keep-path"
        )
    source = instantiate("partition", config.partition)
    if not hasattr(source, "deal"):
        raise ConfigError(
            f"partition._target_={config.partition['_target_']}: splits examples over clients; task=vertical splits"
            " columns over parties: use partition=columns"
        )
    parties: PartySource = source.deal(build_source(config.data))
    fusion = option("vertical.fusion", config.vertical.fusion, Fusion)
    privacy = option("vertical.label_privacy", config.vertical.label_privacy, LabelPrivacy)
    task = build_task(config, parties.schema())
    if task.schema.labels:
        raise ConfigError(
            f"task=vertical: predicts one label or number, and the data has several labels at once"
            f" ({', '.join(task.schema.labels)}). Name one column in data.label, or take task=horizontal"
        )
    privacy.check(task)
    label_party = config.vertical.label_party or parties.labelled
    names = tuple(sorted(parties.party_names))
    if label_party not in names:
        raise ConfigError(f"vertical.label_party={label_party}: must be one of the parties {', '.join(names)}")
    if len(names) < 2:
        raise ConfigError(
            f"partition.parties: {', '.join(names) or 'none'}; vertical learning needs two or more parties"
        )
    fusion.check_parties([name for name in names if name != label_party])
    _check_top(config, fusion, task)
    check_optimizer("optimizer", config.optimizer)
    bottom_network(config, "any", ("column",))
    return VerticalOptions(parties, task, fusion, privacy, label_party)


def _check_top(config: Config, fusion: Fusion, task: Task) -> None:
    outputs, vertical = task.output_shape, config.vertical
    if len(outputs) != 1:
        raise ConfigError(f"task: an output of shape {outputs} cannot be split over parties; it must be one vector")
    if vertical.top is None and not (fusion.additive and vertical.embedding == outputs[0]):
        raise ConfigError(
            f"vertical.top=null: the sum of embeddings is the output, so it takes vertical.fusion=sum and"
            f" vertical.embedding={outputs[0]}"
        )
    if any(units < 1 for units in vertical.top or ()):
        raise ConfigError(f"vertical.top={vertical.top}: each hidden layer needs one unit or more")
    if config.run.device not in ("auto", "cpu"):
        raise ConfigError(f"run.device={config.run.device}: parties train on the CPU; set run.device=cpu")


def _check_unread(config: Config) -> None:
    """Raises ConfigError, naming the key, where a setting would have no effect."""
    default = dict(leaves(asdict(compose([f"task={config.task.name}"]))))
    for key, value in leaves(asdict(config)):
        read = any(key == name or key.startswith(f"{name}.") for name in READ)
        if not read and default.get(key) != value:
            raise ConfigError(
                f"{key}={value}: has no effect in task={config.task.name}; leave it at {default.get(key)}"
            )
