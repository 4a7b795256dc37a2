"""A language model's adapters as the library peft saves them, or merged into the network as `transformers` saves it.

A folder counts only after it was loaded back, and says on real examples what the run's model says.
"""

import shutil
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fedapp.common.errors import ModelError
from fedapp.data.text.tokenizer_file import FromTokenizer
from fedapp.inference.saved import Saved
from fedapp.models.transformer_network import quiet

__all__ = ["ADAPTER_TOLERANCE", "export_adapters"]

ADAPTER_TOLERANCE = 1e-5  # largest difference of a probability
ADAPTER = "default"  # peft's name of it
HEAD = "head.safetensors"


@torch.no_grad()
def export_adapters(saved: Saved, folder: Path, inputs: Tensor, *, merged: bool) -> float:
    """Write the folder and give the largest difference of its predictions from those of the run's model on `inputs`.

    adapter_config.json and adapter_model.safetensors, which go on the network that the run began with; or `merged`,
    config.json and model.safetensors, which are whole. Beside them tokenizer.json, where the run has one, and
    head.safetensors, the linear layer of a classifier. Above ADAPTER_TOLERANCE nothing is written. Raises ModelError,
    opening with `folder`, for a model without adapters, and for a folder that is there.
    """
    if folder.exists():
        raise ModelError(f"{folder}: exists; give the name of a new folder by --output")
    predictor = deepcopy(saved.predictor).float()  # what is frozen in bfloat16 would round a merged network
    holder, name = _network(predictor, folder)
    network = getattr(holder, name)
    expected = predictor(inputs)
    unchecked = Path(mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        loaded = (_write_merged if merged else _write_adapters)(network, unchecked)
        if head := _head_of(predictor):
            save_file(head, unchecked / HEAD)
        if isinstance(saved.schema.text, FromTokenizer) and saved.schema.text.tokenizer is not None:
            saved.schema.text.tokenizer.save(str(unchecked / "tokenizer.json"))
        setattr(holder, name, loaded())
        difference = float((expected - predictor(inputs)).abs().max())
        if difference <= ADAPTER_TOLERANCE:
            unchecked.chmod(0o755)
            unchecked.rename(folder)
    except OSError as error:
        raise ModelError(f"{folder}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(unchecked, ignore_errors=True)
    return difference


def _network(predictor: nn.Module, folder: Path) -> tuple[nn.Module, str]:
    """The module that has the network, and its name there."""
    for module in predictor.modules():
        for name, child in module.named_children():
            if hasattr(child, "peft_config"):
                return module, name
    raise ModelError(f"{folder}: --format peft is of language models with adapters (model.trainable=lora)")


def _head_of(predictor: nn.Module) -> dict[str, Tensor]:
    """The state of the linear layer on the network; empty where the network's own output is the model's."""
    found = [module for name, module in predictor.named_modules() if name.endswith("net.head")]
    return {key: value.contiguous() for module in found for key, value in module.state_dict().items()}


def _write_adapters(network: Any, folder: Path) -> Callable[[], nn.Module]:
    from peft import PeftModel, get_peft_model_state_dict

    config = network.peft_config[ADAPTER]
    state = get_peft_model_state_dict(network, adapter_name=ADAPTER)
    save_file(
        {f"base_model.model.{key}": value.contiguous() for key, value in state.items()},
        folder / "adapter_model.safetensors",
    )
    config.inference_mode = True
    config.save_pretrained(str(folder))
    plain = _without_adapters(network, merge=False)

    def loaded() -> nn.Module:
        with warnings.catch_warnings():  # peft asks for what transformers will call otherwise
            warnings.filterwarnings("ignore", ".*gradient_checkpointing", FutureWarning)
            return PeftModel.from_pretrained(plain, str(folder)).eval()

    return loaded


def _write_merged(network: Any, folder: Path) -> Callable[[], nn.Module]:
    plain = _without_adapters(network, merge=True)
    kind = type(plain)
    with quiet():
        plain.save_pretrained(str(folder))

    def loaded() -> nn.Module:
        with quiet():
            found: nn.Module = kind.from_pretrained(
                str(folder), use_safetensors=True, dtype=torch.float32, local_files_only=True
            )
        return found.eval()

    return loaded


def _without_adapters(network: Any, *, merge: bool) -> Any:
    """A copy with plain layers again, whose weights contain the adapters if `merge`."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    plain = deepcopy(network)
    for name, module in list(plain.named_modules()):
        if isinstance(module, BaseTunerLayer):
            if merge:
                module.merge(safe_merge=True)
            plain.set_submodule(name, module.get_base_layer())
    del plain.peft_config
    return plain
