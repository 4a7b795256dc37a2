"""Adapting a network: what is trained, what is frozen, what travels, and what comes back together."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fedapp.common.errors import ConfigError
from fedapp.config import compose
from fedapp.data.features import Features, features_of
from fedapp.data.shards import ClientData
from fedapp.data.source import Examples
from fedapp.learning.build import build_parts
from fedapp.models.shared_state import frozen_state, load_shared, shared_state
from fedapp.models.transfer import FeatureNorm, OnFeatures, adapt, split
from fedapp.models.weights import load_into, read_weights

OPTIONS: dict[str, Any] = {"last_k": 2, "lora": {"rank": 2, "alpha": 4}, "feature_norm": "none"}


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 8), nn.Linear(8, 3)
    )


def images(count: int = 6) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def trained_step(model: nn.Module) -> None:
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    nn.functional.cross_entropy(model(images()), torch.tensor([0, 1, 2, 0, 1, 2])).backward()
    optimizer.step()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trainable", "names"),
    [
        ("head", {"head.0.weight", "head.0.bias"}),
        ("last_k", {"4.weight", "4.bias", "5.weight", "5.bias"}),
        ("lora", {"0.lora_A.default.weight", "0.lora_B.default.weight", "4.lora_A.default.weight",
                  "4.lora_B.default.weight", "5.weight", "5.bias"}),
    ],
)  # fmt: skip
def test_only_what_is_trainable_changes_and_travels(trainable: str, names: set[str]) -> None:
    model = adapt(net(), trainable=trainable, **OPTIONS)  # type: ignore[arg-type]
    assert set(shared_state(model)) == names
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trained_step(model)
    trained_step(model)  # LoRA's first factors move once the second ones are not 0
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == names
    assert set(frozen_state(model)) | names == set(before)
    assert not set(frozen_state(model)) & names


def test_full_sends_all() -> None:
    model = adapt(net(), trainable="full", **OPTIONS)
    assert set(shared_state(model)) == set(model.state_dict())
    assert frozen_state(model) == {}


def test_a_batch_norm_that_is_trained_keeps_and_sends_its_statistics() -> None:
    model = adapt(net(), trainable="last_k", **{**OPTIONS, "last_k": 3})
    assert {"1.weight", "1.bias", "1.running_mean", "1.running_var"} <= set(shared_state(model))
    assert "0.weight" not in shared_state(model)


@pytest.mark.parametrize("trainable", ["head", "last_k", "lora"])
def test_before_training_the_network_is_what_it_was(trainable: str) -> None:
    expected = net().eval()(images())
    model = adapt(net(), trainable=trainable, **OPTIONS)  # type: ignore[arg-type]
    assert torch.allclose(model.eval()(images()), expected, atol=1e-6)
    assert torch.allclose(model.train()(images()), expected, atol=1e-6)  # BatchNorm stays in evaluation mode


def test_head_and_features_are_the_whole() -> None:
    class Input(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / 2

    whole = nn.Sequential()
    whole.add_module("input", Input())
    whole.add_module("net", adapt(net(), trainable="head", **OPTIONS))
    frozen, head = split(whole)
    assert frozen is not None
    assert torch.equal(head(frozen(images())), whole.eval()(images()))
    assert not frozen.training
    assert all(parameter.requires_grad for parameter in head.parameters())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    plain = nn.Sequential()
    plain.add_module("net", net())
    assert split(plain) == (None, plain)


def test_feature_norm_is_of_each_example_alone_and_of_any_size() -> None:
    features = torch.randn(5, 40) * torch.tensor([1e-12, 1e-9, 1.0, 1e6, 1e12])[:, None]
    found = FeatureNorm()(features)
    assert torch.allclose(found.mean(1), torch.zeros(5), atol=1e-5)
    assert torch.allclose(found.var(1, correction=0), torch.ones(5), atol=1e-3)
    assert torch.equal(FeatureNorm()(features[2:3]), found[2:3])
    assert torch.equal(FeatureNorm()(torch.zeros(1, 4)), torch.zeros(1, 4))


def test_what_cannot_be_adapted_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.last_k=9: must lie in 1..4"):
        adapt(net(), trainable="last_k", **{**OPTIONS, "last_k": 9})
    with pytest.raises(ConfigError, match=r"model.feature_norm=layer: has an effect with"):
        adapt(net(), trainable="full", **{**OPTIONS, "feature_norm": "layer"})
    with pytest.raises(ConfigError, match="no linear layer"):
        adapt(nn.Sequential(nn.Conv2d(1, 2, 3)), trainable="head", **OPTIONS)
    with pytest.raises(ConfigError, match=r"model.last_k=0: must be at least 1"):
        adapt(net(), trainable="head", **{**OPTIONS, "last_k": 0})
    for lora, part in (
        ({"rank": 0, "alpha": 1}, "model.lora.rank=0: must be a whole number, at least 1"),
        ({"rank": 1.5, "alpha": 1}, "model.lora.rank=1.5: must be a whole number"),
        ({"rank": 1, "alpha": 0}, "model.lora.alpha=0: must be greater than 0"),
        ({"rank": 1}, "must have rank and alpha, and nothing else"),
    ):
        with pytest.raises(ConfigError, match=part):
            adapt(net(), trainable="lora", **{**OPTIONS, "lora": lora})


def test_another_models_state_is_refused() -> None:
    model = adapt(net(), trainable="head", **OPTIONS)
    good = shared_state(model)
    load_shared(model, good)
    for bad in (
        {},
        {"head.0.weight": good["head.0.weight"]},
        {**good, "body.0.weight": torch.zeros(4, 1, 3, 3)},
        {**good, "head.0.bias": torch.zeros(4)},
    ):
        with pytest.raises(ValueError, match=r"another one|size mismatch"):
            load_shared(model, bad)


# --- features ----------------------------------------------------------------------------------------------------


def test_features_are_computed_once_and_in_the_same_batches() -> None:
    calls: list[int] = []

    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 5)

        def forward(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            out: Tensor = self.linear(x.flatten(1))
            return out

    features = Features(Body())
    data = ClientData(Examples(images(37), torch.zeros(37).long()), Examples(images(3), torch.zeros(3).long()))
    first = features(4, data)
    assert calls == [16, 16, 5, 3]
    assert features(4, data) is first
    assert calls == [16, 16, 5, 3]
    assert first.train.inputs.shape == (37, 5)
    assert not first.train.inputs.requires_grad
    nobody = Examples(torch.zeros(0, 1, 8, 8), torch.zeros(0).long())
    assert len(features_of(features.frozen, nobody)) == 0


# --- weights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_come_back_from_files(tmp_path: Path, suffix: str) -> None:
    import hashlib

    path, state = tmp_path / f"weights{suffix}", net().state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    found = read_weights(path, digest.upper())
    assert all(torch.equal(found[name], state[name]) for name in state)
    with pytest.raises(ConfigError, match=r"model.weights_sha256=00.*another file, or was cut short"):
        read_weights(path, "00")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ConfigError, match="is no whole file of weights"):
        read_weights(path)


def test_a_pickle_is_refused_and_nothing_in_it_runs(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "exploded",))

    torch.save({"weights": Bomb()}, tmp_path / "weights.pt")
    with pytest.raises(ConfigError, match="could run code; it was not loaded"):
        read_weights(tmp_path / "weights.pt")
    assert not (tmp_path / "exploded").exists()


def test_what_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ConfigError, match="holds no state dict"):
        read_weights(tmp_path / "list.pt")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_weights(tmp_path / "none.pt")


def test_weights_of_another_network_are_refused_by_name() -> None:
    state = net().state_dict()
    others = {"5.weight": torch.zeros(7, 8), "9.extra": torch.zeros(1)}
    with pytest.raises(ConfigError, match=r"lacks 0.weight; has unknown 9.extra; has 5.weight \(7, 8\), not \(3, 8\)"):
        load_into(net(), {k: v for k, v in {**state, **others}.items() if k != "0.weight"}, "model.pretrained=x")


# --- networks ----------------------------------------------------------------------------------------------------


def parts(*overrides: str) -> Any:
    return build_parts(compose(["task=transfer", "data.size=32", *overrides]))


@pytest.mark.slow
def test_the_packages_weights_are_those_of_imagenet() -> None:
    """Against random ones: the features of the same photographs differ from cell to cell by far more."""
    pretrained, random = parts(), parts("model.pretrained=false")
    assert pretrained.backbone != random.backbone
    assert pretrained.backbone == parts("run.seed=5").backbone
    assert random.backbone != parts("model.pretrained=false", "run.seed=5").backbone
    inputs = torch.randint(0, 256, (8, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert float(pretrained.frozen(inputs).std(0).mean()) > 1e3 * float(random.frozen(inputs).std(0).mean())
    assert isinstance(pretrained.whole.net, OnFeatures)
    assert sum(p.numel() for p in pretrained.model.parameters()) == 1280 * 2 + 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (("data.size=40",), "sides are multiples of 32"),
        (("model.weights_sha256=00",), "model.weights_sha256=00"),
        (("model.pretrained=/nowhere.pt",), "cannot be read"),
        (("model.pretrained=weights.pt",), "must be an absolute path"),
        (("model.trainable=nonsense",), "model.trainable='nonsense': must be one of head, last_k, lora, full"),
        (("model.pretrained=false", "model.weights_sha256=00"), "has no effect"),
        (("model=torchvision", "model.pretrained=true"), "set model.norm=batch"),
        (("model=torchvision", "model.name=resnet18", "model.pretrained=true", "model.norm=batch"), "no network"),
        (("data=breast_cancer", "model=mlp"), ""),
    ],
)
def test_what_does_not_fit_is_refused_by_name(overrides: tuple[str, ...], part: str) -> None:
    lines = ["task=transfer", "data.size=32", *overrides]
    if "data=breast_cancer" in overrides:  # no frozen part, no trouble
        assert build_parts(compose([line for line in lines if line != "data.size=32"])).backbone == ""
        return
    if "no network" in part:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(
                "torch.hub.download_url_to_file", lambda *_, **__: (_ for _ in ()).throw(OSError("offline"))
            )
            patched.setenv("TORCH_HOME", "/nonexistent-torch-home")
            with pytest.raises(ConfigError, match="cannot be downloaded"):
                build_parts(compose(lines))
        return
    with pytest.raises(ConfigError, match=part):
        build_parts(compose(lines))


@pytest.mark.slow
def test_torchvisions_published_weights_from_a_file(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    torch.manual_seed(3)
    published = resnet18(weights=None)
    save_file(published.state_dict(), tmp_path / "resnet18.safetensors")
    options = ["model=torchvision", "model.name=resnet18", "model.norm=batch", "model.trainable=head"]
    made = build_parts(compose([*options, f"model.pretrained={tmp_path}/resnet18.safetensors", "data=digits"]))
    published.fc = nn.Identity()
    x = images(2) * 16
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    scaled = (x / 16 - mean[:, None, None]) / std[:, None, None]
    assert torch.allclose(made.frozen(x), published.eval()(scaled), atol=1e-5)
