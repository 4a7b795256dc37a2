"""From config to the task: its kind, its loss, its metrics."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

from fedapp.common.errors import ConfigError
from fedapp.config import Config, instantiate, options_of
from fedapp.data.source import Schema
from fedapp.learning.losses import Loss
from fedapp.learning.metrics import choose
from fedapp.learning.task import Task

__all__ = [
    "build_kind",
    "build_task",
    "check_target",
    "with_loss",
]


def check_target(config: Config, task: Task) -> None:
    """Raises ConfigError where the accuracy that a run is to reach is no metric of its task."""
    if config.federation.target_accuracy is not None and "accuracy" not in task.metrics:
        raise ConfigError(
            f"federation.target_accuracy: needs a classification task, this one is a {task.kind} without the metric"
            " accuracy; leave it null"
        )


def build_kind(node: dict[str, Any], schema: Schema) -> Task:
    """The task with the loss and the metric of its kind."""
    task = instantiate("task.kind", node, partial=True)(schema)
    if not isinstance(task, Task):
        raise ConfigError(f"task.kind._target_={node['_target_']}: does not give a fedapp.learning.task.Task")
    return task


def build_task(config: Config, schema: Schema) -> Task:
    task = with_loss(build_kind(config.task.kind, schema), config.task.loss)
    return replace(task, metrics=choose(config.task.metrics, task.kind, task.metrics, schema))


def with_loss(task: Task, node: dict[str, Any]) -> Task:
    """The task with the loss of `node`, and the constants that this one brings."""
    loss = instantiate("task.loss", node)
    if loss is None:
        return task
    if not isinstance(loss, Loss):
        raise ConfigError(f"task.loss._target_={node['_target_']}: is not a fedapp.learning.losses.Loss")
    if loss.serves != task.kind:
        raise ConfigError(
            f"task.loss={type(loss).__name__}: is a loss for {loss.serves}, this task is a {task.kind}. Choose"
            f" {' or '.join(f'task/loss={name}' for name in _losses(task.kind))}"
        )
    return replace(task, criterion=loss.of(task.schema))


def _losses(kind: str) -> list[str]:
    """The options of conf/task/loss/ that serve `kind`, and auto; those that need an argument are left out."""
    made = {}
    for name, node in options_of("task/loss").items():
        with suppress(ConfigError):
            made[name] = instantiate("task.loss", node)
    return [name for name, loss in made.items() if loss is None or loss.serves == kind]
