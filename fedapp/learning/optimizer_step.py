"""Steps of a torch.optim optimizer by gradients as values, without what torch does around the arithmetic.

For a small model, `zero_grad`, `backward` into `.grad` and `step` with its hooks cost as much as the arithmetic itself.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.sgd import sgd

__all__ = ["make_optimizer", "stepper"]

Step = Callable[[Sequence[Tensor | None]], None]
# Methods that torch wraps so that torch.compile leaves them alone. The wrapper imports the compiler, which takes over a
# second in every process, unless it finds what it would make of the method under this name.
UNCOMPILED, WRAPPED = "__dynamo_disable", ("add_param_group", "state_dict", "load_state_dict", "zero_grad")


def make_optimizer(factory: Callable[[list[nn.Parameter]], Optimizer], parameters: list[nn.Parameter]) -> Optimizer:
    """The optimizer that `factory` makes for `parameters`, without importing torch's compiler where that can be."""
    for name in WRAPPED:
        method = getattr(getattr(Optimizer, name), "__wrapped__", None)
        if method is not None and not hasattr(method, UNCOMPILED):
            setattr(method, UNCOMPILED, method)
    return factory(parameters)


def stepper(optimizer: Optimizer) -> Step:
    """A function that steps the parameters of `optimizer` by their gradients, given in the parameters' order.

    None for a parameter that the loss does not depend on. Plain torch.optim.SGD on one group of parameters steps by
    torch's own functional form, which gives the same bits, and keeps its momentum where `state_dict` finds it. Any
    other optimizer is given its gradients as `.grad`.
    """
    group = optimizer.param_groups[0]
    asks_for_more = group.get("fused") or group.get("differentiable") or group.get("foreach") is False
    if type(optimizer) is SGD and len(optimizer.param_groups) == 1 and not asks_for_more:
        return lambda gradients: _sgd_step(optimizer, gradients)
    return lambda gradients: _step(optimizer, gradients)


def _step(optimizer: Optimizer, gradients: Sequence[Tensor | None]) -> None:
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def _sgd_step(optimizer: SGD, gradients: Sequence[Tensor | None]) -> None:
    group = optimizer.param_groups[0]
    pairs = [(p, g) for p, g in zip(group["params"], gradients, strict=True) if g is not None]
    parameters, used = [p for p, _ in pairs], [g for _, g in pairs]
    momentum = group["momentum"]
    buffers = [optimizer.state[p].get("momentum_buffer") if momentum else None for p in parameters]
    begins = momentum and any(buffer is None for buffer in buffers)
    sparse = any(gradient.is_sparse for gradient in used)
    if used and not (momentum or group["weight_decay"] or sparse):  # what `sgd` comes to then, without its way there
        torch._foreach_add_(parameters, used, alpha=group["lr"] if group["maximize"] else -group["lr"])
        return
    sgd(
        parameters,
        used,
        buffers,
        has_sparse_grad=sparse,
        foreach=not sparse,
        weight_decay=group["weight_decay"],
        momentum=momentum,
        lr=group["lr"],
        dampening=group["dampening"],
        nesterov=group["nesterov"],
        maximize=group["maximize"],
    )
    if begins:
        for parameter, buffer in zip(parameters, buffers, strict=True):
            optimizer.state[parameter]["momentum_buffer"] = buffer
