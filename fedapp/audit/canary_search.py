"""What a model of text knows of a secret: its rank among drawn ones, and whether a search ends with it (Carlini et al.,
"The Secret Sharer", USENIX Security 2019)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedapp.common.errors import FederationError
from fedapp.learning.tasks.next_token import NextToken

__all__ = ["LARGEST_EXPOSURE", "PREFIX", "SECRET", "exposure", "most_probable", "ordinary_tokens"]

PREFIX, SECRET = 3, 3  # tokens
DRAWN = 1023  # secrets that the right one is ranked among
LARGEST_EXPOSURE = math.log2(DRAWN + 1)
BEAM = 50
ROWS = 64  # windows at once


def ordinary_tokens(task: NextToken) -> list[int]:
    """The indices of tokens that are part of a text."""
    special = set(task.text.special)
    return [index for index in range(len(task.text)) if index not in special]


def _windows(task: NextToken, tokens: Tensor) -> Tensor:
    """(n, T): the beginning, each row of `tokens`, and padding."""
    inputs = torch.full((len(tokens), task.schema.input_shape[0]), task.text.padding)
    inputs[:, 0] = task.text.begin
    inputs[:, 1 : tokens.shape[1] + 1] = tokens
    return inputs


@torch.no_grad()
def _log_chances(model: nn.Module, task: NextToken, tokens: Tensor, count: int) -> Tensor:
    """(n, tokens): log-probabilities behind the first `count` of each of `tokens` (n, at least count)."""
    chunks = torch.split(_windows(task, tokens[:, :count]), ROWS)
    return torch.cat([model(chunk)[:, count].log_softmax(1) for chunk in chunks])


@torch.no_grad()
def _log_chance_of(model: nn.Module, task: NextToken, prefix: Sequence[int], secrets: Tensor) -> Tensor:
    """(n,): of each of `secrets` (n, SECRET) behind the prefix."""
    tokens = torch.cat([torch.tensor(prefix).expand(len(secrets), -1), secrets], 1)
    inputs, found = _windows(task, tokens[:, :-1]), []
    for rows, own in zip(torch.split(inputs, ROWS), torch.split(secrets, ROWS), strict=True):
        chances = model(rows)[:, PREFIX : PREFIX + SECRET].log_softmax(2)
        found.append(chances.gather(2, own[..., None]).squeeze(2).sum(1))
    return torch.cat(found)


def exposure(
    model: nn.Module, task: NextToken, prefix: Sequence[int], secret: Sequence[int], draws: torch.Generator
) -> float:
    """Of a secret among drawn ones, ranked by the probability that the model gives them behind the prefix: log2 of how
    many there are, less log2 of the secret's rank; 0 to LARGEST_EXPOSURE. Raises FederationError for a model whose
    probabilities are not finite."""
    able = torch.tensor(ordinary_tokens(task))
    secrets = able[torch.randint(len(able), (DRAWN, SECRET), generator=draws)]
    secrets = torch.cat([torch.tensor(secret)[None], secrets])
    chances = _log_chance_of(model, task, prefix, secrets)
    if not bool(chances.isfinite().all()):
        raise FederationError("--canaries: the model's probabilities are not finite; set a smaller optimizer.lr")
    rank = 1 + int((chances[1:] >= chances[0]).sum())
    return LARGEST_EXPOSURE - math.log2(rank)


def most_probable(model: nn.Module, task: NextToken, prefix: Sequence[int]) -> tuple[int, ...]:
    """The most probable secret behind the prefix that a search of width `BEAM` finds."""
    able = torch.tensor(ordinary_tokens(task))
    tokens, scores = torch.tensor(prefix)[None], torch.zeros(1)
    for place in range(SECRET):
        chances = scores[:, None] + _log_chances(model, task, tokens, PREFIX + place)[:, able]
        best = chances.flatten().topk(min(BEAM, chances.numel()))
        rows, columns = best.indices // len(able), best.indices % len(able)
        tokens, scores = torch.cat([tokens[rows], able[columns][:, None]], 1), best.values
    return tuple(tokens[0, PREFIX:].tolist())
