"""The last layers of models of the next token: from hidden units to a logit of each token."""

from torch import Tensor, nn

from fedapp.common.errors import ConfigError
from fedapp.data.source import Schema

__all__ = ["TokenHead", "check_text", "embedding_of"]

SPREAD = 0.1  # of initial embeddings; as the weights of a tied head they must be small


def check_text(schema: Schema, model: str) -> tuple[int, int]:
    """How many tokens there are, and how long windows are; a ConfigError that names `model` where the data has none."""
    if schema.text is None or schema.classes:
        raise ConfigError(f"model={model}: predicts the next token of a text; choose data=shakespeare or data=text")
    return schema.vocabulary, schema.input_shape[0]


def embedding_of(tokens: int, width: int) -> nn.Embedding:
    made = nn.Embedding(tokens, width)
    nn.init.uniform_(made.weight, -SPREAD, SPREAD)
    return made


class TokenHead(nn.Module):
    """(B, T, hidden) to (B, T, tokens). Tied to an `embedding` (tokens, width), its last layer has that weight (Press
    and Wolf, "Using the Output Embedding to Improve Language Models", EACL 2017), behind a layer from hidden to width
    where these differ."""

    def __init__(self, hidden: int, embedding: nn.Embedding, *, tied: bool) -> None:
        super().__init__()
        tokens, width = embedding.weight.shape
        inner = width if tied else hidden
        self.project = nn.Linear(hidden, inner) if inner != hidden else nn.Identity()
        self.logits = nn.Linear(inner, tokens)
        nn.init.zeros_(self.logits.bias)
        nn.init.uniform_(self.logits.weight, -SPREAD, SPREAD)
        if tied:
            self.logits.weight = embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.logits(self.project(x))
        return out
