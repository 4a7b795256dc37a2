"""What update steps keep on the server from round to round, and what they say of a round."""

from collections.abc import Mapping
from typing import Any

from fedapp.updates.steps import UpdateSteps

__all__ = ["figures_of", "load_steps", "state_of"]


def figures_of(steps: UpdateSteps) -> dict[str, float | None]:
    """What metrics.jsonl says of the last round, by name."""
    return {name: value for step in steps.steps for name, value in step.figures().items()}


def state_of(steps: UpdateSteps) -> dict[str, Any]:
    """By step, what a resumed run needs, as JSON holds it."""
    return {step.name: found for step in steps.steps if (found := step.state_dict())}


def load_steps(steps: UpdateSteps, saved: Mapping[str, Any]) -> None:
    """Go on from what `state_of` gave."""
    for step in steps.steps:
        if step.name in saved:
            step.load_state_dict(saved[step.name])
