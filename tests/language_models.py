"""Small language models with random weights, for tests of what holds for large ones."""

from pathlib import Path

__all__ = ["ADAPTED", "ARCHITECTURES", "CAUSAL", "LABELLED", "LETTERS", "made_of"]

TEXTS = Path(__file__).with_name("texts.jsonl")
LETTERS = TEXTS.with_name("letters.jsonl")  # 24 users, 12 lines each: whether somebody asks or tells
SMALL = (
    "hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 32, max_position_embeddings: 64"
)
NO_DROPOUT = "hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0"
ARCHITECTURES = {
    "gpt2": (
        "{model_type: gpt2, n_embd: 16, n_layer: 2, n_head: 2, n_positions: 64,"
        " resid_pdrop: 0.0, embd_pdrop: 0.0, attn_pdrop: 0.0}"
    ),
    "llama": f"{{model_type: llama, {SMALL}}}",
    "bert": f"{{model_type: bert, {SMALL}, {NO_DROPOUT}}}",
}
ARCHITECTURES = {name: text.replace(" ", "") for name, text in ARCHITECTURES.items()}  # overrides are split at spaces
TEXT = (
    f"data=text data.path={TEXTS} data.test_clients=4 data.window=8 data.vocabulary_size=500 partition=natural"
    " partition.partition_by=user"
)
LABELLED = (
    f"task=text_classification data=labelled_text data.path={LETTERS} data.classes=[asks,tells] data.window=10"
    " data.tokenizer=null data.vocabulary_size=500 data.test_clients=2 partition=natural"
    " partition.partition_by=user"
)
CAUSAL = f"{TEXT} model=causal_lm model.pretrained=false model.architecture={ARCHITECTURES['gpt2']} optimizer.lr=0.5"
ADAPTED = f"{LABELLED} model.pretrained=false model.architecture={ARCHITECTURES['bert']} optimizer.lr=0.02"


def made_of(overrides: str, architecture: str) -> str:
    """The same overrides, with another form of network."""
    found = next(text for text in ARCHITECTURES.values() if text in overrides)
    return overrides.replace(found, ARCHITECTURES[architecture])
