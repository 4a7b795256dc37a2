"""Encoders of the library `transformers`, pooled, with a linear layer on top: classifiers of texts."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fedapp.common.errors import ConfigError
from fedapp.data.source import Schema
from fedapp.models.adapters import Trained, train_only
from fedapp.models.causal_lm import check_tokens
from fedapp.models.transfer import OnFeatures
from fedapp.models.transformer_network import load_network

__all__ = ["TextBody", "text_encoder"]

Pooling = Literal["mean", "first", "last"]


class TextBody(nn.Module):
    """(B, T) tokens, padded at the end, to (B, width) float32 that padding does not change.

    `pooling`: the mean of all places, as sentence encoders are trained (Reimers and Gurevych 2019), the first, as
    BERT's classifiers have it, or the last, as causal networks need it.
    """

    def __init__(self, network: nn.Module, *, padding: int, rows: int, pooling: Pooling) -> None:
        super().__init__()
        self.network = network
        self.padding, self.rows, self.pooling = padding, rows, pooling

    def forward(self, x: Tensor) -> Tensor:
        there = x != self.padding
        there = torch.cat([torch.ones_like(there[:, :1]), there[:, 1:]], 1)  # of no text, too, one place is attended to
        x = torch.where(x < self.rows, x, 0)  # a special token that the network's tokenizer lacks
        states: Tensor = self.network(input_ids=x, attention_mask=there.long()).last_hidden_state.float()
        if self.pooling == "first":
            return states[:, 0]
        if self.pooling == "last":
            ends = (there.sum(1) - 1)[:, None, None].expand(-1, 1, states.shape[2])
            return states.gather(1, ends).squeeze(1)
        return (states * there[..., None]).sum(1) / there.sum(1, keepdim=True)


class TextClassifier(nn.Sequential):
    """A body whose adapters are trained, and the head on it."""

    def __init__(self, body: TextBody, head: nn.Module) -> None:
        super().__init__(OrderedDict(body=body, head=head))


def text_encoder(
    schema: Schema,
    *,
    pretrained: bool | str,
    revision: str | None,
    architecture: dict[str, Any] | None,
    trainable: Trained,
    last_k: int,
    lora: Mapping[str, Any],
    dtype: Literal["float32", "bfloat16"],
    gradient_checkpointing: bool,
    pooling: Pooling,
) -> nn.Module:
    """(B, T) tokens of the network's own tokenizer (data.tokenizer) to (B, num_outputs). Only the head and what
    `trainable` says is trained and travels; with head what the rest makes of an example is computed once.

    Raises ConfigError or DeviceError for what cannot be loaded, and for another tokenizer.
    """
    text = schema.text
    if text is None or not schema.classes:
        raise ConfigError(
            "model=text_encoder: classifies texts; choose data=labelled_text or data=verse, and for the next token"
            " model=causal_lm"
        )
    network: Any = load_network(
        "AutoModel",
        pretrained=pretrained,
        revision=revision,
        architecture=architecture,
        tokens=len(text),
        dtype=dtype,
        gradient_checkpointing=gradient_checkpointing,
    )
    if isinstance(getattr(network, "pooler", None), nn.Module):
        network.pooler = None  # of another task, and not used
    check_tokens(network, text, schema.input_shape[0], pretrained=pretrained, revision=revision)
    rows = network.get_input_embeddings().weight.shape[0]
    body = TextBody(network, padding=text.padding, rows=rows, pooling=pooling)
    head = nn.Linear(network.config.hidden_size, schema.num_outputs)
    train_only(network, trainable=trainable, last_k=last_k, lora=lora, dtype=dtype)
    return OnFeatures(body, head) if trainable == "head" else TextClassifier(body, head)
