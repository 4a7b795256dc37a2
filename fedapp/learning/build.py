"""From config to objects: where config values become data, task and model, alike on server and clients."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from inspect import isclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from fedapp.common.errors import ConfigError, DataError, FedappError
from fedapp.common.seeding import seeded
from fedapp.common.state_digest import state_sha256
from fedapp.config import Config, instantiate, option
from fedapp.data.augmentation import augmentation
from fedapp.data.source import DataSource
from fedapp.learning.build_task import build_task, check_target
from fedapp.learning.optimizer_step import make_optimizer
from fedapp.learning.precision import check_precision
from fedapp.learning.task import Task
from fedapp.learning.training import LocalTraining
from fedapp.models.fit import check_fits, smallest_batch
from fedapp.models.input_layer import assemble
from fedapp.models.personal import Personal
from fedapp.models.shared_state import frozen_state, personal_state, shared_state
from fedapp.models.transfer import split
from fedapp.models.weights import form_only

__all__ = [
    "Parts",
    "build_model",
    "build_parts",
    "build_source",
    "build_training",
    "check_optimizer",
    "optimizer_factory",
]


@dataclass(frozen=True)
class Parts:
    """What server and clients both have: the data set, the task, and the model at its initial state.

    `whole` takes examples. `model` is the part of it that is trained: all, or what works on the output of `frozen`.
    `personal` says what of that is the clients' own, `smallest_batch` how many examples a training step needs.
    """

    source: DataSource
    task: Task
    whole: nn.Module
    frozen: nn.Module | None
    model: nn.Module
    personal: Personal
    smallest_batch: int = 1

    def check_enough(self, num_examples: int) -> None:
        """Raises DataError for a client with examples, but too few for a training step."""
        if 0 < num_examples < self.smallest_batch:
            raise DataError(
                f"{num_examples} training example, and the model's BatchNorm trains on {self.smallest_batch} or more:"
                " give it more, or take a model with GroupNorm (such as model.norm=group)"
            )

    @property
    def backbone(self) -> str:
        """SHA-256 of what server and clients must have alike because it never travels: what is frozen, and of text the
        tokens; "" where all travels."""
        fixed = frozen_state(self.model) | (self.frozen.state_dict() if self.frozen is not None else {})
        frozen, text = state_sha256(fixed) if fixed else "", self.task.schema.text
        return frozen if text is None else sha256(f"{frozen}{text.sha256}".encode()).hexdigest()

    @property
    def kept_tensors(self) -> dict[str, Tensor]:
        """What of the trained model each client keeps for itself, as the model's own tensors: its personal part, or all
        of it where clients have whole models of their own."""
        return personal_state(self.model) if self.personal.own is None else shared_state(self.model)

    @property
    def is_whole(self) -> bool:
        """Whether the server's model is complete; not where clients have a part of their own."""
        return not personal_state(self.model)


def build_parts(config: Config) -> Parts:
    """Raises ConfigError or DataError for whatever cannot work, before anything starts."""
    for key in ("path", "test_path"):
        if (path := config.data.get(key)) and not Path(path).expanduser().is_absolute():
            raise ConfigError(f"data.{key}={path}: must be an absolute path, since server and clients start elsewhere")
    source = build_source(config.data)
    schema = source.schema()
    task = build_task(config, schema)
    check_target(config, task)
    with seeded(config.run.seed, "model"):
        whole = build_model(config.model, task)
    check_fits(whole, task.example_inputs, task.output_shape)
    smallest = smallest_batch(whole, task.example_inputs)
    if config.train.batch_size < smallest:
        raise ConfigError(
            f"train.batch_size={config.train.batch_size}: the model's BatchNorm trains on {smallest} examples or more;"
            f" set it to at least {smallest}, or take a model with GroupNorm (such as model.norm=group)"
        )
    augmentation(config.train.augmentation, schema)  # what is wrong with it is said now
    frozen, model = split(whole)
    if schema.scaling.kind == "federated" and not all(parameter.requires_grad for parameter in whole.parameters()):
        raise ConfigError(
            "data.scaling=federated: the scaling of inputs is part of what is frozen here; set model.trainable=full"
        )
    personal = option("federation.personal", config.federation.personal, Personal)
    personal.mark(model)
    check_optimizer("optimizer", config.optimizer)
    if config.train.logit_adjustment:
        task.adjustment(config.train.logit_adjustment)  # refuses a task that has nothing to adjust
    return Parts(source, task, whole, frozen, model, personal, smallest)


def build_source(node: dict[str, Any]) -> DataSource:
    return option("data", node, DataSource)


def build_model(node: dict[str, Any], task: Task) -> nn.Sequential:
    """The network between its input layer and the task's output layer: (B, *input_shape) as stored to (B,
    *output_shape)."""
    net = instantiate("model", node, partial=True)(task.schema)
    return assemble(net, task.input_layer(), task.output_layer())


def check_optimizer(key: str, node: dict[str, Any]) -> None:
    """Make the optimizer once, so that bad values are refused now and not in the first round."""
    made = optimizer_factory(key, node)
    try:
        make_optimizer(made, [nn.Parameter(torch.zeros(1))])
    except Exception as error:  # each library has its own
        raise ConfigError(f"{key}: {node.get('_target_')} refused its arguments: {error}") from None


def optimizer_factory(key: str, node: dict[str, Any]) -> Callable[..., torch.optim.Optimizer]:
    made = instantiate(key, node, partial=True)
    if isinstance(made, functools.partial) and isclass(made.func) and issubclass(made.func, torch.optim.Optimizer):
        # Hydra's own kind of partial asks whether the class may be made each time, which takes 0.1 ms a client.
        made = functools.partial(made.func, *made.args, **made.keywords)
    return cast(Callable[..., torch.optim.Optimizer], made)


def model_bytes(config: Config) -> int | None:
    """How large the config's model is, found without any memory for it; None where that cannot be found so."""
    task = build_task(config, build_source(config.data).schema())
    try:
        with form_only(), torch.device("meta"):
            return bytes_of(build_model(config.model, task))
    except FedappError:
        raise
    except Exception:  # a model of somebody's own that computes with its weights as it is made
        return None


def bytes_of(model: nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in (*model.parameters(), *model.buffers()))


def build_training(
    config: Config, parts: Parts, max_seconds: float | None = None, max_steps: int | None = None
) -> LocalTraining:
    """Plain local training. `max_seconds` and `max_steps`: the operator's; the shorter of the first and the server's
    counts."""
    check_precision(config.train.precision, parts.whole, parts.task)
    bounds = [config.train.max_seconds, max_seconds]
    return LocalTraining(
        loss=parts.task.loss,
        optimizer=optimizer_factory("optimizer", config.optimizer),
        local_epochs=config.train.local_epochs,
        batch_size=config.train.batch_size,
        proximal_mu=config.train.proximal_mu,
        adjustment=parts.task.adjustment(tau) if (tau := config.train.logit_adjustment) else None,
        prepare=_preparation(config, parts),
        precision=config.train.precision,
        max_seconds=min((bound for bound in bounds if bound is not None), default=None),
        max_steps=max_steps,
    )


def _preparation(config: Config, parts: Parts) -> Callable[[Tensor], Tensor] | None:
    """Augmentation, and what the frozen part makes of its result, which is new each time; None without it."""
    augment, frozen = augmentation(config.train.augmentation, parts.task.schema), parts.frozen
    if augment is None or frozen is None:
        return augment

    @torch.no_grad()
    def prepare(images: Tensor) -> Tensor:
        features: Tensor = frozen(augment(images))
        return features

    return prepare
