"""What noise will do to a model, said before a run: with few clients, or many parameters, it drowns the updates."""

import math

from fedapp.data.findings import Findings

__all__ = ["foresight"]

FEW_CLIENTS = 20
LOUD = 1.0  # noise in a mean update, in clipping norms


def foresight(
    norm: float,
    multiplier: float,
    parameters: int,
    expected: float,
    population: int,
    *,
    without_metrics: float | None = None,
) -> Findings:
    """Of a mean over `expected` clients whose updates are clipped to `norm`, with noise of `multiplier` times that on
    each of the sum's `parameters` values. `without_metrics`: the multiplier if no metrics shared the budget."""
    noise = multiplier * norm * math.sqrt(parameters) / expected
    said = (
        f"client-level DP: in each round's mean the noise has a norm of {noise:.3g}"
        f" ({multiplier:.3g} x {norm:.3g} x sqrt({parameters}) / {expected:g}), beside updates of at most {norm:.3g}"
    )
    if without_metrics is not None:
        said += (
            f"; privacy.metrics_epsilon pays for metrics out of the same budget: without it the noise multiplier of the"
            f" updates would be {without_metrics:.3g} in place of {multiplier:.3g}"
        )
    warnings = []
    if population <= FEW_CLIENTS:
        warnings.append(
            f"privacy=client_dp with {population} clients: so few cannot have client-level privacy at a useful"
            " accuracy, since hiding any one of them hides what they all have learnt. To protect single examples take"
            " privacy=dp_sgd"
        )
    elif noise > LOUD * norm:
        enough = math.ceil(population * noise / norm)
        warnings.append(
            f"privacy=client_dp: the noise is {noise / norm:.3g} times as large as any update. {parameters} parameters"
            f" are too many for {population} clients: take a smaller model, about {enough} clients or more, a higher"
            " federation.fraction_train, or privacy=dp_sgd, which protects single examples"
        )
    return Findings((said,), tuple(warnings))
