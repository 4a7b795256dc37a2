"""Causal language models of the library `transformers`: models of the next token."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from torch import Tensor, nn

from fedapp.common.errors import ConfigError
from fedapp.data.source import Schema
from fedapp.data.text.tokenizer_file import FromTokenizer, read_tokenizer
from fedapp.data.text.vocabulary import Vocabulary
from fedapp.models.adapters import train_only
from fedapp.models.token_head import check_text
from fedapp.models.transformer_network import load_network, tokenizer_beside
from fedapp.models.weights import weights_wanted

__all__ = ["CausalLm", "causal_lm"]

NEVER = -1e4  # logit of a token that the network does not have


class CausalLm(nn.Module):
    """(B, T) tokens to logits (B, T, tokens) float32; those at a place depend on the tokens up to it alone, so padding
    behind them needs no mask. `rows`: how many tokens the network has; indices from there on are special tokens that
    its tokenizer lacks, and stand for its end of text."""

    def __init__(self, network: nn.Module, text: Vocabulary, rows: int) -> None:
        super().__init__()
        self.network = network
        self.tokens, self.rows = len(text), rows
        self.instead = text.end if text.end < rows else 0

    def forward(self, x: Tensor) -> Tensor:
        if self.tokens > self.rows:
            x = torch.where(x < self.rows, x, self.instead)
        logits: Tensor = self.network(input_ids=x, use_cache=False).logits.float()
        return (
            F.pad(logits, (0, self.tokens - self.rows), value=NEVER)
            if self.tokens > self.rows
            else (logits[..., : self.tokens])
        )


def causal_lm(
    schema: Schema,
    *,
    pretrained: bool | str,
    revision: str | None,
    architecture: dict[str, Any] | None,
    trainable: Literal["lora", "last_k", "full"],
    last_k: int,
    lora: Mapping[str, Any],
    dtype: Literal["float32", "bfloat16"],
    gradient_checkpointing: bool,
) -> nn.Module:
    """(B, T) to (B, T, tokens), for tokens of the network's own tokenizer (data.tokenizer). Only what `trainable` says
    is trained and travels. Raises ConfigError or DeviceError for what cannot be loaded, and for another tokenizer."""
    tokens, length = check_text(schema, "causal_lm")
    text = schema.text
    assert text is not None
    network: Any = load_network(
        "AutoModelForCausalLM",
        pretrained=pretrained,
        revision=revision,
        architecture=architecture,
        tokens=tokens,
        dtype=dtype,
        gradient_checkpointing=gradient_checkpointing,
    )
    network.config.pad_token_id = None  # windows are padded at their ends, which no other place depends on
    check_tokens(network, text, length, pretrained=pretrained, revision=revision)
    train_only(network, trainable=trainable, last_k=last_k, lora=lora, dtype=dtype)
    return CausalLm(network, text, network.get_input_embeddings().weight.shape[0])


def check_tokens(network: Any, text: Vocabulary, length: int, *, pretrained: bool | str, revision: str | None) -> None:
    """Raises ConfigError for windows, or a vocabulary, that the network does not take."""
    if pretrained is not False:
        _check_belongs(text, pretrained, revision)
    rows = network.get_input_embeddings().weight.shape[0]
    others = [index for index in range(rows, len(text)) if index not in text.special]
    if others:
        raise ConfigError(
            f"data.tokenizer: has {len(text)} tokens, the network's embedding {rows}; give the tokenizer.json that"
            " belongs to the network"
        )
    if text.end >= rows and text.end not in text.uncounted:
        raise ConfigError(
            f"data.tokenizer: its end of text {text.tokens[text.end]} is token {text.end}, the network's embedding has"
            f" {rows}; give the tokenizer.json that belongs to the network"
        )
    most = getattr(network.config, "max_position_embeddings", None)
    if most is not None and length > most:
        raise ConfigError(f"data.window={length}: this network takes at most {most} tokens; set it to that or less")


def _check_belongs(text: Vocabulary, pretrained: bool | str, revision: str | None) -> None:
    """Raises ConfigError for what is not the tokenizer that the weights were made with, as far as that can be told."""
    if not isinstance(text, FromTokenizer):
        raise ConfigError(
            f"data.tokenizer=null: model.pretrained={pretrained} was made with tokens of its own, to which those of"
            " data.vocabulary mean nothing; set data.tokenizer to the network's own tokenizer.json, or to true for"
            " MiniLM's, or set model.pretrained=false"
        )
    beside = tokenizer_beside(pretrained, revision) if weights_wanted() else None
    if beside is not None and read_tokenizer(beside).sha256 != text.sha256:
        raise ConfigError(
            f"data.tokenizer: is another tokenizer than that of model.pretrained={pretrained}; set"
            f" data.tokenizer={beside}"
        )
