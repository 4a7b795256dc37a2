"""The token that comes next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from torch import Tensor, nn

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.source import Examples
from fedapp.data.text.vocabulary import Vocabulary
from fedapp.learning.losses import Loss
from fedapp.learning.losses.next_token import TokenCrossEntropy, outside
from fedapp.learning.metrics import Metric
from fedapp.learning.metrics.next_token import Perplexity, TokenTopK
from fedapp.learning.task import Task

__all__ = ["SUGGESTIONS", "NextToken"]

SUGGESTIONS = 3  # as a keyboard shows them
LOGITS = 1 << 24  # that evaluation holds at once: 64 MB


def _metrics() -> Mapping[str, Metric]:
    accuracy, top_3 = TokenTopK("token_accuracy", k=1), TokenTopK("token_top_3", k=3)
    return {"token_accuracy": accuracy, "token_top_3": top_3, "perplexity": Perplexity("perplexity")}


@dataclass(frozen=True)
class NextToken(Task):
    """Inputs are windows of tokens (B, T) int64, padded at the end; outputs logits (B, T, tokens); targets the tokens
    that follow (B, T) int64. Padding and unknown tokens are neither in the loss nor in the metrics, the ends of lines
    in the loss alone. Raises ConfigError for data that is no text."""

    kind: ClassVar[str] = "next_token"
    criterion: Loss = field(default_factory=TokenCrossEntropy)
    metrics: Mapping[str, Metric] = field(default_factory=_metrics)

    def __post_init__(self) -> None:
        if self.schema.text is None or self.schema.classes:
            raise ConfigError(
                "task.kind=next_token: the data is no text; choose data=shakespeare or data=text, or task/kind=auto"
            )
        if isinstance(self.criterion, TokenCrossEntropy):
            object.__setattr__(self, "criterion", self.criterion.of(self.schema))

    @property
    def text(self) -> Vocabulary:
        assert self.schema.text is not None
        return self.schema.text

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (*self.schema.input_shape, self.schema.num_outputs)

    def example_targets(self, count: int) -> Tensor:
        return torch.full((count, *self.schema.input_shape), self.text.end)

    def check_targets(self, targets: Tensor, name: str) -> None:
        if targets.dtype != torch.int64:
            raise DataError(f"{name}: the tokens that follow are {targets.dtype}, token indices must be int64")
        if tuple(targets.shape[1:]) != self.schema.input_shape:
            shape = tuple(targets.shape[1:])
            raise DataError(f"{name}: the tokens that follow have shape {shape}, {self.schema.input_shape} is needed")
        if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < len(self.text):
            raise DataError(f"{name}: a token that follows lies outside 0..{len(self.text) - 1}")

    # --- evaluation ------------------------------------------------------------------------------------------------

    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(B, T, 2) as metrics take them, of logits (B, T, tokens). Ranks are among tokens that are part of a text,
        which alone are suggested; one ranks behind all others of equal logits."""
        own, special = outputs.gather(2, targets[..., None]), list(self.text.special)
        log_probability = -F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
        above = (outputs >= own).sum(2, dtype=torch.int32) - (outputs[..., special] >= own).sum(2)
        rank = torch.where(outside(targets, self.text.special), above - 1, -1)  # less one: the token itself
        return torch.stack([log_probability.view(targets.shape), rank.to(log_probability)], 2)

    @torch.no_grad()
    def judge(self, model: nn.Module, examples: Examples) -> tuple[float, Tensor]:
        device = next(model.parameters()).device
        model.eval()
        rows = max(1, LOGITS // (self.output_shape[0] * self.output_shape[1]))
        scores, losses = [], []
        for start in range(0, max(1, len(examples)), rows):
            chunk = examples.span(start, start + rows).to(device)
            outputs = model(chunk.inputs)
            scores.append(self.scores(outputs, chunk.targets).cpu())
            losses.append(self.loss_per_example(outputs, chunk.targets).cpu())
        return float(torch.cat(losses).double().mean()), torch.cat(scores)

    def undefined(self, name: str, targets: Tensor) -> str:
        scores = torch.where(outside(targets, self.text.special), 0.0, -1.0)[..., None].expand(-1, -1, 2)
        value = self.metrics[name](scores, targets) if len(targets) else float("nan")
        return self.lacking(targets) if value != value else ""

    def lacking(self, targets: Tensor) -> str:
        return f"{len(targets)} examples without a token of the vocabulary"

    # --- inference -------------------------------------------------------------------------------------------------

    def predictions(self, outputs: Tensor) -> Tensor:
        """(B, T, tokens): the probability of each token behind each one of the inputs."""
        return outputs.softmax(2)

    def told(self, inputs: Tensor, predictions: Tensor) -> Tensor:
        """(B, tokens): the probabilities behind the last token of each input."""
        last = (inputs != self.text.padding).sum(1).clamp(min=1) - 1
        return predictions[torch.arange(len(inputs)), last]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"{what} {place}" for place in range(1, SUGGESTIONS + 1) for what in ("token", "probability"))

    def row(self, prediction: Sequence[float]) -> list[str]:
        return [cell for token, chance in self.suggestions(prediction) for cell in (token, f"{chance:.9g}")]

    def line(self, prediction: Sequence[float]) -> list[str]:
        return [cell for token, chance in self.suggestions(prediction) for cell in (token, f"{chance:.4f}")]

    def suggestions(self, prediction: Sequence[float]) -> list[tuple[str, float]]:
        """The most probable tokens that are part of a text, as a person reads them, with their probabilities."""
        return [(self.shown(index), chance) for index, chance in self.best(prediction)]

    def best(self, prediction: Sequence[float]) -> list[tuple[int, float]]:
        """The same, by index."""
        chances = torch.tensor(prediction)
        chances[list(self.text.special)] = -1.0
        found = chances.topk(SUGGESTIONS)
        return list(zip(found.indices.tolist(), found.values.tolist(), strict=True))

    def shown(self, index: int) -> str:
        return _shown(self.text.join([index]))


def _shown(token: str) -> str:
    """As it is, or as Python writes it where that cannot be seen."""
    return token if token.strip() and token.isprintable() else repr(token)
