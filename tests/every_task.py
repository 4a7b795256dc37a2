"""What holds for one task must hold for every other: the same tests run over these overrides, all on the digits.

The frozen network is a small one with random weights: what travels, what is kept and what is paid for is the same as
with learnt ones, and it is quick.
"""

__all__ = ["BODY", "EVERY_TASK", "HEAD", "SLOW_TASKS"]

BODY = (
    "task=transfer data=digits task.metrics=auto model=torchvision model.name=shufflenet_v2_x0_5 model.norm=batch"
    " model.pretrained=false"
)
HEAD = f"{BODY} model.trainable=head model.feature_norm=layer"
EVERY_TASK = {
    "horizontal": "model=logistic_regression",
    "head": HEAD,
    "lora": f"{BODY} model.trainable=lora model.lora.rank=1",
    "last_k": f"{BODY} model.trainable=last_k",
    "personal heads": "model=mlp federation.personal=head",
}
SLOW_TASKS = [name for name in EVERY_TASK if name != "horizontal"]
