"""What a federated model of text is to be judged by: a model of three words and the same network on all text in one
place, each client alone, and each client's own fine-tuned one."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn

from fedapp.common.errors import ConfigError
from fedapp.common.nested import differences, is_among
from fedapp.common.seeding import generator
from fedapp.compare.judged_text import HeldOut, JudgedText
from fedapp.compare.trigram import Trigram
from fedapp.config import Config, instantiate
from fedapp.config.saved_config import plain_yaml
from fedapp.data.source import Examples
from fedapp.data.whole_groups import group_rows
from fedapp.learning.build import build_parts, build_training
from fedapp.learning.build_shards import build_shards
from fedapp.learning.tasks.next_token import NextToken
from fedapp.learning.training import LocalTraining
from fedapp.models.weights import load_into, read_weights
from fedapp.server.run import settled
from fedapp.server.schedule import LearningRateSchedule

__all__ = ["Baselines"]

PIECES = 40  # of pooled training, with one learning rate each
# What decides which text is held out, and the model: sections and keys of a config.
SAME = {"data", "model", "partition", "run.seed", "federation.num_clients", "train.val_fraction"}
Tell = Callable[[str], None]


class Baselines:
    """Trains and judges models of the same text. Raises ConfigError for a config whose task is not the next token."""

    def __init__(self, config: Config) -> None:
        self.config, self.parts = config, build_parts(config)
        self.judged_by = json.loads(json.dumps(asdict(settled(config, self.parts))))
        task = self.parts.task
        if not isinstance(task, NextToken):
            raise ConfigError(f"task: baselines of text need data=shakespeare or data=text, this task is {task.kind}")
        self.task: NextToken = task
        self.start = {key: value.clone() for key, value in self.parts.whole.state_dict().items()}
        shards = build_shards(config, self.parts)
        self.clients = [shards.of(client) for client in range(config.federation.num_clients)]
        self.train = _joined([client.train for client in self.clients])
        self.training: LocalTraining = build_training(config, self.parts)
        self.judged = JudgedText(task, config.run.seed)
        self.held_out = self._held_out()

    def _held_out(self) -> list[HeldOut]:
        validation = [client.validation for client in self.clients]
        found = []
        if any(map(len, validation)):
            sizes = [len(one) for one in validation if len(one)]
            units = torch.split(torch.arange(sum(sizes)), sizes)
            found.append(HeldOut("held-out lines of the clients", _joined(validation), units))
        test = self.parts.source.test()
        if test is not None:
            found.append(HeldOut("held-out clients", test, tuple(group_rows(test))))
        if not found:
            raise ConfigError("train.val_fraction, data.test_clients: nothing is held out; set one of them")
        return found

    @property
    def windows_of_the_federation(self) -> int:
        """How many windows all rounds together train on, for a cohort of mean size."""
        section = self.config.federation
        cohort = math.ceil(round(section.fraction_train * section.num_clients, 9))
        mean = len(self.train) / section.num_clients
        return round(section.num_rounds * cohort * mean * self.config.train.local_epochs)

    # --- models ----------------------------------------------------------------------------------------------------

    def trigram(self) -> None:
        """Three words, on all training text."""
        model = Trigram(self.task.text, self.train)
        for held in self.held_out:
            self.judged.add("3-gram, pooled", held, model.scores(held.examples))

    def pooled(self) -> None:
        """The network on all training text in one place, on as many windows as the federation's rounds have, with the
        clients' optimizer and the learning rates of the rounds, in `PIECES` steps."""
        model, wanted, seed = self._fresh(), self.windows_of_the_federation, (self.config.run.seed, "pooled")
        draws = generator(*seed)
        passes = math.ceil(wanted / len(self.train))
        order = torch.cat([torch.randperm(len(self.train), generator=draws) for _ in range(passes)])[:wanted]
        rate = LearningRateSchedule(instantiate("client_lr", self.config.client_lr, partial=True))
        training, rounds = replace(self.training, local_epochs=1), self.config.federation.num_rounds
        for piece, rows in enumerate(torch.tensor_split(order, min(PIECES, rounds))):
            lr_factor = rate.factor(1 + piece * rounds // min(PIECES, rounds))
            training(model, self.train.take(rows), seed=(*seed, piece), lr_factor=lr_factor)
        self._judge("network, pooled", model)

    def run(self, directory: Path) -> None:
        """The model of a finished run."""
        self._judge("federated", self._of_run(directory))

    def alone(self, count: int, epochs: int, tell: Tell) -> None:
        """`count` clients, each with a network of its own from the start, on their own held-out lines."""
        self._own("network, each client alone", count, epochs, self._fresh, tell)

    def fine_tuned(self, directory: Path, count: int, epochs: int, tell: Tell) -> None:
        """The same from the model of a run, and what that model says of the same lines before."""
        make = lambda: self._of_run(directory)  # noqa: E731
        name = "federated"
        self._own(f"{name}, as it is", count, 0, make, tell)
        self._own(f"{name}, fine-tuned by each client", count, epochs, make, tell)

    def _own(self, name: str, count: int, epochs: int, make: Callable[[], nn.Module], tell: Tell) -> None:
        scores, units, held, start = [], [], [], 0
        chosen = self.chosen(count)
        for number, client in enumerate(chosen, 1):
            tell(f"{name}: {number} of {len(chosen)}")
            data, model = self.clients[client], make()
            if epochs:
                seed = (self.config.run.seed, "own", client)
                replace(self.training, local_epochs=epochs)(model, data.train, seed=seed)
            scores.append(self.task.judge(model, data.validation)[1])
            held.append(data.validation)
            units.append(torch.arange(start, start + len(data.validation)))
            start += len(data.validation)
        some = HeldOut(f"held-out lines of {len(chosen)} clients", _joined(held), tuple(units))
        self.judged.add(name, some, torch.cat(scores))

    def chosen(self, count: int) -> list[int]:
        """Clients with held-out lines, drawn with the run's seed."""
        able = [client for client, data in enumerate(self.clients) if len(data.validation)]
        order = torch.randperm(len(able), generator=generator(self.config.run.seed, "chosen")).tolist()
        return sorted(able[place] for place in order[:count])

    def _judge(self, name: str, model: nn.Module) -> None:
        for held in self.held_out:
            self.judged.judge(name, model, held)

    def _fresh(self) -> nn.Module:
        self.parts.whole.load_state_dict(self.start)
        return self.parts.whole

    def _of_run(self, directory: Path) -> nn.Module:
        self._check_same(directory)
        path = directory / "model.safetensors"
        load_into(self.parts.whole, read_weights(path, key="--run"), f"--run {path}")
        return self.parts.whole

    def _check_same(self, directory: Path) -> None:
        """Raises ConfigError for a run of another model, or one that may have learnt from what is held out here."""
        path = directory / "config.yaml"
        try:
            before = plain_yaml(path.read_text("utf-8"))
            run = dict(json.loads(json.dumps(before)))  # YAML has numbers as keys
        except Exception as error:  # a parser of YAML has many
            raise ConfigError(f"--run {path}: is no config of a run ({str(error).partition(chr(10))[0]})") from None
        changed = differences(run, self.judged_by, lambda key: is_among(key, SAME))
        if changed:
            raise ConfigError(
                f"--run {directory}: is of other data or another model, and may have learnt from what is held out here;"
                " give the overrides of that run:\n  " + "\n  ".join(changed[:10])
            )


def _joined(parts: Sequence[Examples]) -> Examples:
    return Examples(torch.cat([one.inputs for one in parts]), torch.cat([one.targets for one in parts]))
