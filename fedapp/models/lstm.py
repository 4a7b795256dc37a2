"""A recurrent model of the next token."""

from torch import Tensor, nn

from fedapp.common.errors import ConfigError
from fedapp.data.source import Schema
from fedapp.models.fit import check_sizes
from fedapp.models.token_head import TokenHead, check_text, embedding_of

__all__ = ["lstm"]


class LstmLm(nn.Module):
    """(B, T) tokens to logits (B, T, tokens); those at a place depend on the tokens up to it alone."""

    def __init__(self, tokens: int, *, embedding: int, hidden: int, layers: int, dropout: float, tied: bool) -> None:
        super().__init__()
        self.embedding = embedding_of(tokens, embedding)
        self.dropout = nn.Dropout(dropout)
        # Between layers it drops out by itself, and warns where there is nothing between.
        self.lstm = nn.LSTM(embedding, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.head = TokenHead(hidden, self.embedding, tied=tied)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(self.dropout(self.embedding(x)))
        out: Tensor = self.head(self.dropout(states))
        return out


def lstm(schema: Schema, *, embedding: int, hidden: int, layers: int, dropout: float, tied: bool) -> nn.Module:
    """An embedding, `layers` of LSTM (Hochreiter and Schmidhuber 1997) and a linear layer; the network of Hard et al.,
    "Federated Learning for Mobile Keyboard Prediction" (2018), couples input and forget gates besides. `tied`: the last
    layer has the embedding's weight. Raises ConfigError for data that is no text, and bad values."""
    tokens, _ = check_text(schema, "lstm")
    for key, value in (("embedding", embedding), ("hidden", hidden), ("layers", layers)):
        check_sizes(f"model.{key}", [value])
    if not 0 <= dropout < 1:
        raise ConfigError(f"model.dropout={dropout}: must be a share of at least 0 and below 1, e.g. 0.2")
    return LstmLm(tokens, embedding=embedding, hidden=hidden, layers=layers, dropout=dropout, tied=tied)
