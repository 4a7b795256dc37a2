"""Networks of the library `transformers`: what is read, what is trained, and that padding changes nothing."""

import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from language_models import ADAPTED, ARCHITECTURES, CAUSAL, LETTERS, made_of
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor

from fedapp.client.build import only_own_paths
from fedapp.common.errors import ConfigError
from fedapp.config import compose
from fedapp.data.text.tokenizer_file import read_tokenizer
from fedapp.data.text.vocabulary import Words
from fedapp.learning.build import Parts, build_parts, build_training
from fedapp.models.causal_lm import check_tokens
from fedapp.models.shared_state import aliases, shared_state
from fedapp.models.transformer_network import _form
from fedapp.privacy.limits import OwnLimits

pytestmark = pytest.mark.slow  # the library takes seconds to import

TASKS = {
    "gpt2": CAUSAL,
    "llama": made_of(CAUSAL, "llama"),
    "bert": ADAPTED,
    "gpt2 last": f"{made_of(ADAPTED, 'gpt2')} model.pooling=last",
}
each = pytest.mark.parametrize("overrides", TASKS.values(), ids=TASKS)


def parts_of(overrides: str) -> Parts:
    return build_parts(compose(shlex.split(overrides)))


def some(parts: Parts, count: int = 8) -> Any:
    return parts.source.pooled().train.take(range(count))


@pytest.mark.parametrize("trainable", ["lora", "last_k", "full"])
@each
def test_what_is_trainable_changes_and_travels_and_nothing_else(overrides: str, trainable: str) -> None:
    overrides = f"{overrides} model.trainable={trainable} model.last_k=1"
    parts = parts_of(overrides)
    before = {key: value.clone() for key, value in parts.model.state_dict().items()}
    build_training(compose(shlex.split(overrides)), parts)(parts.model, some(parts, 64), seed=(0,))
    changed = {key for key, value in parts.model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed - aliases(parts.model) == set(shared_state(parts.model))
    assert (trainable == "full") == all(parameter.requires_grad for parameter in parts.model.parameters())


@each
def test_before_training_adapters_change_nothing(overrides: str) -> None:
    adapted, plain = parts_of(overrides), parts_of(f"{overrides} model.trainable=full")
    own = plain.whole.state_dict()
    taken = {key: own.get(key.replace(".base_layer", ""), value) for key, value in adapted.whole.state_dict().items()}
    adapted.whole.load_state_dict(taken)
    inputs = some(plain).inputs
    assert torch.allclose(adapted.whole.eval()(inputs), plain.whole.eval()(inputs), atol=1e-6)


@each
def test_padding_changes_nothing(overrides: str) -> None:
    """Of a window with padding, what is said of its real tokens is what a shorter window says."""
    parts = parts_of(overrides)
    model, padding = parts.whole.eval(), parts.task.schema.text.padding  # type: ignore[union-attr]
    inputs = some(parts).inputs
    inputs[:, 5:] = padding
    short = model(inputs[:, :5])
    found = model(inputs)
    assert torch.allclose(found[:, :5] if found.dim() == 3 else found, short, atol=1e-5)


def test_logits_at_a_place_depend_on_the_tokens_up_to_it_alone() -> None:
    parts = parts_of(CAUSAL)
    inputs = some(parts).inputs
    changed = inputs.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % len(parts.task.schema.text)  # type: ignore[arg-type]
    model = parts.whole.eval()
    assert torch.allclose(model(inputs)[:, :4], model(changed)[:, :4], atol=1e-6)
    assert not torch.allclose(model(inputs)[:, 4:], model(changed)[:, 4:], atol=1e-3)


@each
def test_gradient_checkpointing_changes_no_gradient(overrides: str) -> None:
    found = []
    for checkpointing in ("false", "true"):
        parts = parts_of(f"{overrides} model.gradient_checkpointing={checkpointing}")
        data = some(parts)
        loss = parts.task.loss(parts.model.train()(data.inputs), data.targets)
        wanted = [p for p in parts.model.parameters() if p.requires_grad]
        found.append(torch.autograd.grad(loss, wanted))
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*found, strict=True))


@each
def test_in_bfloat16_is_what_is_frozen_alone(overrides: str) -> None:
    parts, exact = parts_of(f"{overrides} model.dtype=bfloat16"), parts_of(overrides)
    kinds = {p.requires_grad: p.dtype for p in parts.model.parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    assert all(value.dtype is torch.float32 for value in shared_state(parts.model).values())
    assert parts.backbone != exact.backbone
    assert parts.whole.eval()(some(parts).inputs).dtype is torch.float32


def test_of_a_frozen_encoder_the_features_are_kept() -> None:
    parts = parts_of(f"{ADAPTED} model.trainable=head")
    assert parts.frozen is not None
    assert set(shared_state(parts.model)) == {"weight", "bias"}
    inputs = some(parts).inputs
    assert torch.equal(parts.model(parts.frozen(inputs)), parts.whole.eval()(inputs))


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (f"{CAUSAL} model.lora.rank=0", "model.lora.rank=0: must be a whole number"),
        (
            f"{CAUSAL} model.lora.targets=[nonsense]",
            "no linear layer is called nonsense; there are c_attn, c_fc, c_proj",
        ),
        (f"{CAUSAL} model.trainable=last_k model.last_k=9", "model.last_k=9: must lie in 1..2"),
        (f"{CAUSAL} model.trainable=full model.dtype=bfloat16", "set model.trainable=lora, or"),
        (f"{CAUSAL} data.window=65", "this network takes at most 64 tokens"),
        (f"{CAUSAL} model.revision=main", "model.revision=main: is of a name on the Hub"),
        (f"{CAUSAL} federation.personal=head", "federation.personal=head: the head of this model"),
        (CAUSAL.replace("model_type:gpt2", "model_type:nonsense"), "model.architecture: model_type=nonsense"),
        (CAUSAL.replace("n_head:2", "n_head:3"), "model.architecture: model_type=gpt2"),
        (ADAPTED.replace("model_type:bert", "model_type:mpnet"), "model_type=mpnet: attends in a way of its own"),
        (CAUSAL.replace("model_type:gpt2", "model_type:xlnet"), "model_type=xlnet: attends in a way of its own"),
        (
            CAUSAL.replace("n_embd:16", "n_embd:16,vocab_size:99"),
            "the network's embedding 99; give the tokenizer.json that",
        ),
        (f"{CAUSAL} model.architecture=null", "random values need a form"),
        (f"{CAUSAL} model.pretrained=./weights model.architecture=null", "must be an absolute path"),
        (f"{CAUSAL} model.pretrained=/nowhere", "has an effect with model.pretrained=false only"),
        (f"{CAUSAL} model.pretrained=/nowhere model.architecture=null", "is no folder with config.json"),
        (made_of(ADAPTED, "bert").replace("bert,hidden_size:16", "t5,d_model:16"), "encoder with a decoder|t5"),
        (f"{ADAPTED} data=digits", "classifies texts"),
    ],
)
def test_what_cannot_be_is_refused_by_name(overrides: str, part: str) -> None:
    if "data=digits" in overrides:
        overrides = "data=digits model=text_encoder"
    with pytest.raises(ConfigError, match=part):
        parts_of(overrides)


def test_with_no_network_the_message_names_what_needs_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ConfigError, match=r"Hugging Face Hub or its cache.*needs no network: model.pretrained=/absolute"
    ):
        parts_of(f"{CAUSAL} model.architecture=null model.pretrained=nobody/has-this-model")


# --- files ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal network as the library saves it."""
    parts, path = parts_of(f"{CAUSAL} model.trainable=full run.seed=3"), tmp_path_factory.mktemp("llm") / "tiny"
    parts.whole.get_submodule("net.network").save_pretrained(path)  # type: ignore[operator]
    words = Words(size=500).tokens[4:]
    save_tokenizer(path.parent / "tokenizer.json", ("<pad>", "<unk>", "<s>", "</s>", *words))
    return path


def save_tokenizer(path: Path, tokens: Sequence[str], *, lower: bool = True) -> None:
    made: Any = Tokenizer(WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="<unk>"))
    made.pre_tokenizer = Whitespace()
    made.normalizer = Lowercase() if lower else None
    made.save(str(path))


def of_folder(path: Path, tokenizer: Path | None = None) -> str:
    tokenizer = tokenizer or path.parent / "tokenizer.json"
    return f"{CAUSAL} model.architecture=null model.pretrained={path} data.tokenizer={tokenizer}"


def test_weights_want_the_tokens_that_they_were_made_with(folder: Path, tmp_path: Path) -> None:
    """A list of words that is not longer than the network's would be taken for its tokens, and be nonsense."""
    with pytest.raises(ConfigError, match=r"data\.tokenizer=null: .*set data\.tokenizer to the network's own"):
        parts_of(f"{CAUSAL} model.architecture=null model.pretrained={folder}")
    with pytest.raises(ConfigError, match=r"data\.tokenizer=null: .*or to true"):
        parts_of(f"{ADAPTED} model.architecture=null model.pretrained=true")


def test_a_tokenizer_beside_the_weights_is_the_one(folder: Path, tmp_path: Path) -> None:
    other, tokens = tmp_path / "beside", ("<pad>", "<unk>", "<s>", "</s>", "to", "be")
    shutil.copytree(folder, other)
    save_tokenizer(other / "tokenizer.json", tokens)
    parts_of(of_folder(other, other / "tokenizer.json"))
    for name, given, lower in (("tokens", tokens[::-1], True), ("rules", tokens, False)):
        save_tokenizer(tmp_path / f"{name}.json", given, lower=lower)
        with pytest.raises(ConfigError, match=r"data\.tokenizer: is another tokenizer"):
            parts_of(of_folder(other, tmp_path / f"{name}.json"))


def test_so_is_one_on_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Compared where the Hub, or its cache, has one."""
    own = folder.parent / "tokenizer.json"
    save_tokenizer(tmp_path / "other.json", ("<pad>", "<unk>", "<s>", "</s>", "to", "be"))
    network, asked = parts_of(CAUSAL).whole.get_submodule("net.network"), []

    def on_the_hub(name: str, file: str, *, revision: str | None) -> str:
        asked.append((name, file, revision))
        if revision == "gone":
            raise OSError("no such file")
        return str(own)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", on_the_hub)

    def check(tokenizer: Path, revision: str) -> None:
        check_tokens(network, read_tokenizer(tokenizer), 8, pretrained="nobody/tiny", revision=revision)

    check(own, "v1")
    with pytest.raises(ConfigError, match=r"is another tokenizer than that of model\.pretrained=nobody/tiny"):
        check(tmp_path / "other.json", "v1")
    check(tmp_path / "other.json", "gone")
    assert asked == [("nobody/tiny", "tokenizer.json", revision) for revision in ("v1", "v1", "gone")]


@pytest.mark.parametrize("ends", [True, False], ids=["an end that the network lacks", "no end"])
def test_an_end_that_the_network_cannot_say_is_not_learnt(ends: bool, tmp_path: Path) -> None:
    """Its loss would be that of a probability of 0."""
    tokens = ["<pad>", "<unk>", "<s>", *Words(size=500).tokens[4:]]
    save_tokenizer(tmp_path / "tokenizer.json", [*tokens, "</s>"] if ends else tokens)
    form = f"n_embd:16,vocab_size:{len(tokens)}"
    overrides = f"{CAUSAL.replace('n_embd:16', form)} data.tokenizer={tmp_path / 'tokenizer.json'}"
    if ends:
        with pytest.raises(ConfigError, match="its end of text </s> is token"):
            parts_of(overrides)
        return
    parts = parts_of(overrides)
    examples, end = parts.source.pooled().train, parts.task.schema.text.end  # type: ignore[union-attr]
    assert (examples.targets == end).any()
    losses = parts.task.loss_per_example(parts.whole.eval()(examples.inputs), examples.targets)
    assert losses.max() < 20


def test_a_folder_is_read_and_its_weights_are_the_base(folder: Path) -> None:
    parts, state = parts_of(of_folder(folder)), load_file(folder / "model.safetensors")
    found = parts.whole.state_dict()["net.network.transformer.h.0.attn.c_attn.base_layer.weight"]
    assert torch.equal(found, state["transformer.h.0.attn.c_attn.weight"])
    assert parts.backbone != parts_of(CAUSAL).backbone
    assert parts.backbone == parts_of(f"{of_folder(folder)} run.seed=9").backbone


def test_a_pickle_is_not_read(folder: Path, tmp_path: Path) -> None:
    """Not even one that holds weights alone."""
    other = tmp_path / "pickled"
    other.mkdir()
    (other / "config.json").write_bytes((folder / "config.json").read_bytes())
    torch.save(load_file(folder / "model.safetensors"), other / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        parts_of(of_folder(other, folder.parent / "tokenizer.json"))


def test_weights_with_attention_of_their_own_are_refused_with_what_to_take(tmp_path: Path) -> None:
    """The library asks for a contribution to itself there."""
    from transformers import MPNetConfig, MPNetModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    MPNetModel(MPNetConfig(vocab_size=50, **sizes)).save_pretrained(tmp_path / "mpnet")
    with pytest.raises(ConfigError, match=r"model\.pretrained=.*mpnet: is a network that attends .* take another"):
        parts_of(f"{ADAPTED} model.architecture=null model.pretrained={tmp_path / 'mpnet'}")


def test_code_beside_the_weights_is_not_run(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "coded"
    other.mkdir()
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Net"}}
    (other / "config.json").write_text(json.dumps(config))
    (other / "own.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'exploded')!r}).touch()\n")
    (other / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(ConfigError, match="cannot be loaded"):
        parts_of(of_folder(other, folder.parent / "tokenizer.json"))
    assert not (tmp_path / "exploded").exists()


def test_the_parts_of_an_architecture_say_the_form_alone_too() -> None:
    parts = [
        {"hidden_size": 8, "_attn_implementation": "someone/kernel", "quantization_config": {"load_in_4bit": True}}
    ]
    given = {"model_type": "own", "text_config": {"auto_map": {"AutoConfig": "own.Own"}, "hidden_size": 8, 1: parts}}
    assert _form(given) == {"model_type": "own", "text_config": {"hidden_size": 8, 1: [{"hidden_size": 8}]}}


@pytest.mark.parametrize("key", ["auto_map", "attn_implementation", "quantization_config"])
def test_an_architecture_says_the_form_alone(key: str) -> None:
    """A server may send one: nothing of it may name code, kernels or quantisers to load."""
    value = {"attn_implementation": "someone/kernel"}.get(key, "{AutoConfig:own.Own}")
    overrides = CAUSAL.replace("{model_type", f"{{{key}:{value},model_type")
    network: Any = parts_of(overrides).whole.get_submodule("net.network")
    assert network.config._attn_implementation == "sdpa"
    assert not hasattr(network.config, "auto_map")
    assert not hasattr(network.config, "quantization_config")


def test_on_a_device_the_folder_is_one_of_its_operators(folder: Path, tmp_path: Path) -> None:
    """What a server names, a path or a name on the Hub, chooses among the operator's folders by its last part."""
    limits = OwnLimits(weights=folder.parent)
    for given in ("/somewhere/else/tiny", "someone/tiny"):
        config = only_own_paths(compose(shlex.split(of_folder(Path(given), folder.parent / "tokenizer.json"))), limits)
        assert config.model["pretrained"] == str(folder)
    with pytest.raises(ConfigError, match="which has no secrets"):
        only_own_paths(compose(shlex.split(of_folder(Path("/etc/secrets"), folder.parent / "tokenizer.json"))), limits)


def test_weights_of_another_network_are_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    config = json.loads((folder / "config.json").read_text()) | {"n_layer": 3}
    (other / "config.json").write_text(json.dumps(config))
    (other / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(ConfigError, match=r"is of another network: it lacks transformer\.h\.2"):
        parts_of(of_folder(other, folder.parent / "tokenizer.json"))


# --- MiniLM --------------------------------------------------------------------------------------------------------

MINILM = "task=text_classification data=labelled_text data.path={} data.classes=[asks,tells] partition=iid"


def test_minilm_says_of_sentences_what_its_package_says() -> None:
    """The pooled features of the package's weights and tokenizer are those of a sentence encoder: near for what means
    the same, far for what does not."""
    parts = build_parts(compose([*MINILM.format(LETTERS).split(), "~partition.partition_by", "data.window=16"]))
    source: Any = parts.source
    texts = ["The man plays a guitar.", "Someone is playing an instrument.", "The stock market fell sharply today."]
    body = parts.whole.get_submodule("net.body").eval()
    with torch.no_grad():
        features: Tensor = torch.nn.functional.normalize(body(source.inputs_of(texts)))
    near, far = float(features[0] @ features[1]), float(features[0] @ features[2])
    assert near > 0.5 > 0.2 > far
    adapters = sum(value.numel() for value in shared_state(parts.model).values())
    total = sum(parameter.numel() for parameter in parts.whole.parameters())
    assert adapters < 0.01 * total
    assert 22e6 < total < 23e6


def test_every_architecture_is_used() -> None:
    assert all(any(text in overrides for overrides in TASKS.values()) for text in ARCHITECTURES.values())
