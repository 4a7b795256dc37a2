"""Types and ranges of the config's sections. Values are set in `conf/`, so that there is one place to change them."""

import operator
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import MISSING

from fedapp.common.errors import ConfigError

__all__ = ["Config", "Federation", "Run", "Strategy", "TaskSection", "Train", "check_ranges"]


def bounded(
    *, ge: float | None = None, gt: float | None = None, le: float | None = None, word: str | None = None
) -> Any:
    """A required number with its range, or `word`."""
    return field(default=MISSING, metadata={"ge": ge, "gt": gt, "le": le, "word": word})


def choice(*options: str | int) -> Any:
    """A required value out of `options`."""
    return field(default=MISSING, metadata={"options": options})


@dataclass
class TaskSection:
    name: str = choice("horizontal", "transfer", "text_classification", "vertical")
    by_columns: bool = MISSING
    kind: Any = MISSING
    loss: Any = MISSING
    metrics: Any = MISSING


@dataclass
class Federation:
    num_clients: int = bounded(ge=1)
    num_rounds: int = bounded(ge=1)
    fraction_train: float = bounded(gt=0, le=1)
    over_selection: float = bounded(ge=0, le=10)
    client_speed: Any = MISSING
    dropout: float = bounded(ge=0, le=0.95)
    min_clients: int = bounded(ge=1)
    max_failed_rounds: int = bounded(ge=1)
    exclude_after: int | None = bounded(ge=1)
    exclude_rounds: int = bounded(ge=1)
    min_supernodes: int = bounded(ge=1)
    wait_timeout: float = bounded(gt=0)
    round_timeout: float = bounded(gt=0)
    target_accuracy: float | None = bounded(gt=0, le=1)
    patience: int | None = bounded(ge=1)
    patience_metric: str = MISSING
    min_delta: float = bounded(ge=0)
    result: str = choice("last", "best")
    max_seconds: float | None = bounded(gt=0)
    evaluate_every: int = bounded(ge=1)
    final_evaluation: bool = MISSING
    personal: Any = MISSING
    deliver: bool = MISSING


@dataclass
class Train:
    local_epochs: int = bounded(ge=1)
    batch_size: int = bounded(ge=1)
    max_seconds: float | None = bounded(gt=0)
    proximal_mu: float = bounded(ge=0, le=1e6)
    logit_adjustment: float = bounded(ge=0, le=10)
    augmentation: list[str] = MISSING
    val_fraction: float = bounded(ge=0, le=0.9)
    precision: str = choice("fp32", "bf16")


@dataclass
class Strategy:
    weighting: str = choice("num_examples", "uniform", "sqrt")
    weight_cap: float | None = bounded(gt=0)
    weight_bound: int | float | str | None = bounded(ge=1, le=1e6, word="auto")
    max_update_norm: float | None = bounded(gt=0)
    fairness: Any = MISSING
    aggregation: Any = MISSING
    server_optimizer: Any = MISSING


@dataclass
class Vertical:
    label_party: str | None = MISSING
    embedding: int = bounded(ge=1)
    top: list[int] | None = MISSING
    fusion: Any = MISSING
    normalise: str = choice("clean", "casefold", "alphanumeric")
    unmatched: str = choice("drop", "zero")
    min_matches: int = bounded(ge=1)
    local_steps: int = bounded(ge=1)
    label_privacy: Any = MISSING
    predict: str | None = MISSING


@dataclass
class Run:
    seed: int = bounded(ge=0)
    device: str = MISSING
    output_dir: str | None = MISSING
    resume: str | None = MISSING
    replay: str | None = MISSING
    initial_model: str | None = MISSING
    checkpoint_every: int = bounded(ge=1)
    engine: str = choice("local", "flower")
    num_supernodes: int | None = bounded(ge=1)
    threads_per_client: int = bounded(ge=1)
    name: str | None = MISSING
    tags: list[str] = MISSING
    objective: str | None = MISSING
    direction: str = choice("auto", "minimize", "maximize")
    prune: int | None = bounded(ge=1)
    live: bool = MISSING


@dataclass
class Config:
    """The whole config. What is of type Any is a node with a `_target_`, whose class says what keys it takes."""

    task: TaskSection = field(default_factory=TaskSection)
    data: Any = MISSING
    model: Any = MISSING
    partition: Any = MISSING
    optimizer: Any = MISSING
    client_lr: Any = MISSING
    server_lr: Any = MISSING
    strategy: Strategy = field(default_factory=Strategy)
    privacy: Any = MISSING
    secure_aggregation: Any = MISSING
    compression: Any = MISSING
    downlink: Any = MISSING
    cohort: Any = MISSING
    rounds: Any = MISSING
    tracker: Any = MISSING
    federation: Federation = field(default_factory=Federation)
    train: Train = field(default_factory=Train)
    vertical: Vertical = field(default_factory=Vertical)
    run: Run = field(default_factory=Run)


def check_ranges(config: Config) -> None:
    for section_name in ("task", "federation", "train", "strategy", "vertical", "run"):
        for item in fields(getattr(config, section_name)):
            value, rule = getattr(getattr(config, section_name), item.name), item.metadata
            key = f"{section_name}.{item.name}"
            if value is None or value == rule.get("word", MISSING):
                continue
            if isinstance(value, str) and rule.get("word") is not None:
                raise ConfigError(f"{key}={value}: must be a number or {rule['word']}")
            if value not in rule.get("options", (value,)):
                raise ConfigError(f"{key}={value}: must be one of {', '.join(map(str, rule['options']))}")
            # Written so that NaN, which compares false with everything, is refused.
            for holds, words in ((operator.ge, "at least"), (operator.gt, "greater than"), (operator.le, "at most")):
                limit = rule.get(holds.__name__)
                if limit is not None and not holds(value, limit):
                    raise ConfigError(f"{key}={value}: must be {words} {limit}")
