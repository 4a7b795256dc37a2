"""What of a language model is trained: low-rank adapters (by peft), its last blocks, or all of it."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import nn

from fedapp.common.errors import ConfigError

__all__ = ["LORA", "Trained", "train_only"]

Trained = Literal["head", "lora", "last_k", "full"]
LORA = {"rank", "alpha", "dropout", "targets"}


def train_only(net: nn.Module, *, trainable: Trained, last_k: int, lora: Mapping[str, Any], dtype: str) -> None:
    """Let only what `trainable` says be trained of `net`, a network of the library `transformers`, in place.

    head: nothing of it, since the head is the caller's. lora: low-rank additions to linear layers (Hu et al. 2022).
    last_k: its last `last_k` blocks, and the norm behind them. full: all. Raises ConfigError for what cannot be.
    """
    if last_k < 1:
        raise ConfigError(f"model.last_k={last_k}: must be at least 1")
    _check_lora(lora)
    if dtype != "float32" and trainable in ("last_k", "full"):
        raise ConfigError(
            f"model.dtype={dtype}: is for what is frozen, and updates of what is trained need float32; set"
            " model.trainable=lora, or model.dtype=float32 with train.precision=bf16"
        )
    if trainable == "full":
        return
    net.requires_grad_(False)
    if trainable == "last_k":
        _unfreeze_blocks(net, last_k)
    elif trainable == "lora":
        _inject(net, lora)


def _check_lora(lora: Mapping[str, Any]) -> None:
    """Whether they serve or not: a value that could never serve is a mistake."""
    if lora.keys() != LORA:
        raise ConfigError(f"model.lora={dict(lora)}: must have rank, alpha, dropout and targets, and nothing else")
    if type(lora["rank"]) is not int or lora["rank"] < 1:
        raise ConfigError(f"model.lora.rank={lora['rank']}: must be a whole number, at least 1")
    if not isinstance(lora["alpha"], int | float) or not lora["alpha"] > 0:
        raise ConfigError(f"model.lora.alpha={lora['alpha']}: must be greater than 0")
    if not isinstance(lora["dropout"], int | float) or not 0 <= lora["dropout"] < 1:
        raise ConfigError(f"model.lora.dropout={lora['dropout']}: must be a share of at least 0 and below 1")
    targets = lora["targets"]
    if targets is not None and not (isinstance(targets, list) and targets and all(isinstance(t, str) for t in targets)):
        raise ConfigError(f"model.lora.targets={targets}: must be null or a list of layers' names, e.g. [query,value]")


def _unfreeze_blocks(net: nn.Module, count: int) -> None:
    """Blocks are the longest list of modules; what comes behind it, such as a norm, is trained with them unless it is
    the output layer of a vocabulary, which is as large as many blocks."""
    lists = {name: module for name, module in net.named_modules() if isinstance(module, nn.ModuleList)}
    if not lists:
        raise ConfigError("model.trainable=last_k: this network has no list of blocks; choose lora or full")
    name = max(lists, key=lambda key: len(lists[key]))
    blocks = lists[name]
    if count > len(blocks):
        raise ConfigError(f"model.last_k={count}: must lie in 1..{len(blocks)}, the blocks of this network")
    for block in blocks[len(blocks) - count :]:
        block.requires_grad_(True)
    parent = net.get_submodule(name.rpartition(".")[0])
    behind = list(parent.named_children())
    for _, module in behind[[key for key, _ in behind].index(name.rpartition(".")[2]) + 1 :]:
        module.requires_grad_(True)


def _inject(net: nn.Module, lora: Mapping[str, Any]) -> None:
    from peft import LoraConfig, inject_adapter_in_model  # seconds to import

    config = LoraConfig(
        r=lora["rank"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules=_targets(net, lora["targets"]),
        fan_in_fan_out=_transposed(net),
    )
    inject_adapter_in_model(config, net)
    for parameter in net.parameters():
        if parameter.requires_grad:  # of a frozen part in bfloat16, too
            parameter.data = parameter.data.float()


def _targets(net: nn.Module, wanted: Sequence[str] | None) -> list[str]:
    """Whole names of the layers with an adapter: those whose name ends in one of `wanted`; by default as peft has it
    for this architecture, else all linear ones but the output layer."""
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

    config: Any = net.config
    output: Any = net.get_output_embeddings()  # type: ignore[operator]
    linear = {name: module for name, module in net.named_modules() if _is_linear(module) and module is not output}
    if wanted is None:
        wanted = KNOWN.get(config.model_type)
    if wanted is None or isinstance(wanted, str):
        return list(linear)
    found = [name for name in linear if any(name == end or name.endswith(f".{end}") for end in wanted)]
    missing = [end for end in wanted if not any(name == end or name.endswith(f".{end}") for name in found)]
    if missing:
        ends = sorted({name.rpartition(".")[2] for name in linear})
        raise ConfigError(
            f"model.lora.targets: no linear layer is called {', '.join(missing)}; there are {', '.join(ends)}"
        )
    return found


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _transposed(net: nn.Module) -> bool:
    """Whether its linear layers are the library's Conv1D, whose weights lie the other way (GPT-2)."""
    return any(type(module).__name__ == "Conv1D" for module in net.modules())
