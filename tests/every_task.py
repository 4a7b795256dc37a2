"""What holds for one task must hold for every other: the same tests run over these overrides.

The frozen network is a small one with random weights, on a few small images that are made up: what travels, what is
kept and what is paid for is the same as with learnt ones and photographs, and it is quick.
"""

__all__ = ["BODY", "EVERY_TASK", "FEW_IMAGES", "HEAD", "SLOW_TASKS"]

FEW_IMAGES = "data=synthetic data.shape=[1,8,8] data.num_examples=600 data.test_examples=60"
BODY = (
    f"task=transfer {FEW_IMAGES} task.metrics=auto model=torchvision model.name=shufflenet_v2_x0_5 model.norm=batch"
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
