"""A small causal transformer: a model of the next token."""

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from torch import Tensor, nn

from fedapp.common.errors import ConfigError
from fedapp.data.source import Schema
from fedapp.models.fit import check_sizes
from fedapp.models.token_head import TokenHead, check_text, embedding_of

__all__ = ["transformer_lm"]


class CausalAttention(nn.Module):
    """Attention of each place to itself and those before it (Vaswani et al. 2017), of linear layers alone, of which
    Opacus makes each example's gradient."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.queries, self.keys, self.values = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, width = x.shape
        q, k, v = (
            layer(x).view(b, t, self.heads, width // self.heads).transpose(1, 2)  # (B, heads, T, width / heads)
            for layer in (self.queries, self.keys, self.values)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.out(self.dropout(mixed.transpose(1, 2).reshape(b, t, width)))
        return out


class Block(nn.Module):
    """Attention and two linear layers, each behind a LayerNorm and added to what comes in (pre-norm; Xiong et al.
    2020)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.before_attention, self.before_linear = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = CausalAttention(width, heads, dropout)
        self.linear = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.before_attention(x))
        out: Tensor = x + self.dropout(self.linear(self.before_linear(x)))
        return out


class TransformerLm(nn.Module):
    """(B, T) tokens to logits (B, T, tokens); those at a place depend on the tokens up to it alone."""

    def __init__(
        self, tokens: int, length: int, *, width: int, heads: int, layers: int, dropout: float, tied: bool
    ) -> None:
        super().__init__()
        self.embedding, self.places = embedding_of(tokens, width), embedding_of(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = TokenHead(width, self.embedding, tied=tied)

    def forward(self, x: Tensor) -> Tensor:
        # Expanded, so that each example has its own places, and its own gradient of them.
        places = torch.arange(x.shape[1], device=x.device).expand(x.shape[0], -1)
        out: Tensor = self.head(self.norm(self.blocks(self.embedding(x) + self.places(places))))
        return out


def transformer_lm(schema: Schema, *, width: int, heads: int, layers: int, dropout: float, tied: bool) -> nn.Module:
    """Embeddings of tokens and places, `layers` of attention and a linear layer, which has the embedding's weight if
    `tied`. Raises ConfigError for data that is no text, and bad values."""
    tokens, length = check_text(schema, "transformer_lm")
    for key, value in (("width", width), ("heads", heads), ("layers", layers)):
        check_sizes(f"model.{key}", [value])
    if width % heads:
        raise ConfigError(f"model.width={width}, model.heads={heads}: the width must be a multiple of the heads")
    if not 0 <= dropout < 1:
        raise ConfigError(f"model.dropout={dropout}: must be a share of at least 0 and below 1, e.g. 0.2")
    return TransformerLm(tokens, length, width=width, heads=heads, layers=layers, dropout=dropout, tied=tied)
