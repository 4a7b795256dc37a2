"""Whether a model can be trained with DP-SGD, and by which of Opacus's ways it is fastest."""

import warnings
from dataclasses import replace

from torch import nn

from fedapp.common.errors import ConfigError
from fedapp.data.source import Examples
from fedapp.privacy.dp_training import PrivateTraining
from fedapp.privacy.opacus_internals import validation_errors

__all__ = ["check_private", "choose_mode", "working_mode"]

MODES = ("ghost", "ew", "hooks", "functorch")

# Values in the gradients of a batch, one for each example, up to which these are faster than the second backward pass
# that ghost clipping needs, whose norms cost more for convolutions: measured on MLPs and CNNs of 22,514 to 1,663,370
# parameters with batches of 4 to 64.
FEW_VALUES = 1_500_000
FEW_VALUES_WITH_CONVOLUTIONS = 5_000_000


def check_private(model: nn.Module, instead_of_batch_norm: str) -> None:
    """Raises ConfigError, with the remedy, for a model that mixes examples or that Opacus cannot differentiate.

    `instead_of_batch_norm`: what to set, and to what.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ConfigError(
                f"privacy=dp_sgd: layer {name} is {type(module).__name__}, which mixes the examples of a batch, so that"
                f" none of them is protected. {instead_of_batch_norm}"
            )
        if isinstance(module, nn.modules.instancenorm._InstanceNorm) and module.track_running_stats:
            raise ConfigError(f"privacy=dp_sgd: layer {name} keeps running statistics of private data; switch them off")
        if getattr(module, "gradient_checkpointing", False):
            raise ConfigError(
                "privacy=dp_sgd: gradient checkpointing computes layers a second time, and Opacus would take both times"
                " for two uses; set model.gradient_checkpointing=false"
            )
    if errors := validation_errors(model):
        raise ConfigError(f"privacy=dp_sgd: Opacus cannot train this model: {'; '.join(errors)}")


def choose_mode(model: nn.Module, batch_size: int) -> tuple[str, str]:
    """The way that was fastest for models and batches like these, and the reason."""
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    size = f"{count} parameters times {batch_size} examples"
    convolutions = any(isinstance(module, nn.modules.conv._ConvNd) for module in model.modules())
    if count * batch_size <= (FEW_VALUES_WITH_CONVOLUTIONS if convolutions else FEW_VALUES):
        return "ew", f"{size}: a gradient for each example is cheap"
    return "ghost", f"{size}: a gradient for each example would cost more than a second backward pass"


def working_mode(
    training: PrivateTraining, model: nn.Module, two: Examples, *, wanted: str, fastest: tuple[str, str]
) -> tuple[str, str]:
    """The mode in which `model` is trained, and why: `wanted`, or for "auto" the `fastest` of those that can.

    Each is tried for one step on `two` examples, which leaves the model as it was: what Opacus cannot do it says only
    then. Raises ConfigError where none can.
    """
    chosen = fastest if wanted == "auto" else (wanted, "as configured")
    if (why_not := _trial(replace(training, mode=chosen[0]), model, two)) is None:
        return chosen
    if wanted != "auto":
        raise ConfigError(
            f"privacy.grad_sample_mode={wanted}: Opacus cannot train this model so ({why_not}); set it to auto"
        )
    for mode in MODES:
        if mode != chosen[0] and _trial(replace(training, mode=mode), model, two) is None:
            return mode, f"{chosen[0]}, which would be faster, cannot train this model"
    raise ConfigError(
        f"privacy=dp_sgd: Opacus cannot train this model in any of its modes ({why_not}). Choose another model=..."
    )


def _trial(training: PrivateTraining, model: nn.Module, two: Examples) -> str | None:
    """Why a step on `two` examples fails, None if it does not."""
    state = {key: value.clone() for key, value in model.state_dict().items()}
    flags = {module: module.training for module in model.modules()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            replace(training, steps=1, sample_rate=1.0, batch_size=2)(model, two, seed=())
    except Exception as error:  # each layer has its own
        return str(error).strip().split("\n")[0].rstrip(".!") or type(error).__name__
    finally:
        model.load_state_dict(state)
        for module, flag in flags.items():
            module.training = flag
    return None
