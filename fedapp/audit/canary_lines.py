"""Canaries: lines of random tokens, and the clients that have them among their text."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fedapp.audit.canary_search import PREFIX, SECRET, ordinary_tokens
from fedapp.common.errors import ConfigError
from fedapp.config import Config
from fedapp.data.source import Examples
from fedapp.learning.tasks.next_token import NextToken

__all__ = ["Canary", "draw_canaries", "with_canary"]


@dataclass(frozen=True)
class Canary:
    """`client` has it `copies` times among its lines; 0: nobody has it."""

    client: int
    copies: int
    prefix: tuple[int, ...]
    secret: tuple[int, ...]


def draw_canaries(config: Config, task: NextToken, each: int, copies: Sequence[int]) -> list[Canary]:
    """The same in every arm."""
    if task.schema.input_shape[0] < PREFIX + SECRET + 1:
        raise ConfigError(f"data.window: a canary has {PREFIX + SECRET} tokens; set {PREFIX + SECRET + 1} or more")
    drawn, able = random.Random(f"canaries/{config.run.seed}"), ordinary_tokens(task)
    found = []
    for count in copies:
        for _ in range(each):
            tokens = tuple(drawn.choice(able) for _ in range(PREFIX + SECRET))
            client = drawn.randrange(config.federation.num_clients)
            found.append(Canary(client, count, tokens[:PREFIX], tokens[PREFIX:]))
    return found


def with_canary(examples: Examples, task: NextToken, canary: Canary) -> Examples:
    text, length = task.text, task.schema.input_shape[0]
    line = [text.begin, *canary.prefix, *canary.secret, text.end]
    row = torch.tensor(line + [text.padding] * (length + 1 - len(line)))
    rows = row.expand(canary.copies, -1)
    return Examples(torch.cat([examples.inputs, rows[:, :-1]]), torch.cat([examples.targets, rows[:, 1:]]))
