"""What holds for one task must hold for every other: the same tests run over these overrides.

The frozen network is a small one with random weights, on a few small images that are made up: what travels, what is
kept and what is paid for is the same as with learnt ones and photographs, and it is quick.
"""

from pathlib import Path

from language_models import ADAPTED, CAUSAL

__all__ = ["BODY", "EVERY_TASK", "FEW_IMAGES", "HEAD", "LANGUAGE", "SLOW_TASKS", "TEXTS"]

TEXTS = Path(__file__).with_name("texts.jsonl")  # 24 users, 14 lines each, of made-up sentences

FEW_IMAGES = "data=synthetic data.shape=[1,8,8] data.num_examples=600 data.test_examples=60"
BODY = (
    f"task=transfer {FEW_IMAGES} task.metrics=auto model=torchvision model.name=shufflenet_v2_x0_5 model.norm=batch"
    " model.pretrained=false"
)
HEAD = f"{BODY} model.trainable=head model.feature_norm=layer"
LANGUAGE = (
    f"data=text data.path={TEXTS} data.test_clients=4 data.window=8 data.vocabulary_size=2500 partition=natural"
    " partition.partition_by=user model=lstm model.embedding=8 model.hidden=12 optimizer.lr=0.5"
)
EVERY_TASK = {
    "horizontal": "model=logistic_regression",
    "head": HEAD,
    "lora": f"{BODY} model.trainable=lora model.lora.rank=1",
    "last_k": f"{BODY} model.trainable=last_k",
    "personal heads": "model=mlp federation.personal=head",
    "next token": LANGUAGE,
    "adapters": ADAPTED,
    "causal adapters": CAUSAL,
}
SLOW_TASKS = [name for name in EVERY_TASK if name != "horizontal"]
