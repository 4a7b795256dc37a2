"""Whether a model can be trained with DP-SGD, and by which of Opacus's ways it is fastest."""

import warnings

from opacus.validators import ModuleValidator
from torch import nn

from fedapp.errors import ConfigError

__all__ = ["check_private", "choose_mode"]

# Values in the gradients of a batch, one for each example, up to which these are faster than the second backward pass
# that ghost clipping needs, whose norms cost more for convolutions: measured on MLPs and CNNs of 22,514 to 1,663,370
# parameters with batches of 4 to 64.
FEW_VALUES = 1_500_000
FEW_VALUES_WITH_CONVOLUTIONS = 5_000_000


def check_private(model: nn.Module) -> None:
    """Raises ConfigError, with the remedy, for a model that mixes examples or that Opacus cannot differentiate."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ConfigError(
                f"privacy=dp_sgd: layer {name} is {type(module).__name__}, which mixes the examples of a batch, so that"
                " none of them is protected. Use GroupNorm (model.norm=group); of a pretrained network train less, so"
                " that this layer stays frozen (model.trainable=head or lora)"
            )
        if isinstance(module, nn.modules.instancenorm._InstanceNorm) and module.track_running_stats:
            raise ConfigError(f"privacy=dp_sgd: layer {name} keeps running statistics of private data; switch them off")
    was_training = model.training
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        errors = ModuleValidator.validate(model.train(), strict=False)
    model.train(was_training)
    if errors:
        raise ConfigError(
            f"privacy=dp_sgd: Opacus cannot train this model: {'; '.join(str(error) for error in errors)}"
        )


def choose_mode(model: nn.Module, batch_size: int) -> tuple[str, str]:
    """The way that was fastest for models and batches like these, and the reason."""
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    size = f"{count} parameters times {batch_size} examples"
    convolutions = any(isinstance(module, nn.modules.conv._ConvNd) for module in model.modules())
    if count * batch_size <= (FEW_VALUES_WITH_CONVOLUTIONS if convolutions else FEW_VALUES):
        return "ew", f"{size}: a gradient for each example is cheap"
    return "ghost", f"{size}: a gradient for each example would cost more than a second backward pass"
