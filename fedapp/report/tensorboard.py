"""TensorBoard scalars, one step a round."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["EventWriter"]

_GROUPS = ("test", "train", "val", "seconds", "bytes")
_PRIVACY = ("epsilon_", "delta", "noise_multiplier", "sample_rate", "steps_per_round", "max_grad_norm")


class EventWriter:
    """Writes the numbers of a metrics.jsonl line as scalars under `log_dir`.

    `test_accuracy` becomes `test/accuracy`, so that TensorBoard groups what belongs together; `seconds` becomes
    `seconds/total`, `epsilon_max` `privacy/epsilon_max`, and what is left, such as `cohort`, goes under `clients/`.
    """

    def __init__(self, log_dir: Path, *, resume_at: int | None = None) -> None:
        """With `resume_at`, TensorBoard drops what an earlier process wrote for that round and later ones."""
        from torch.utils.tensorboard import SummaryWriter  # takes seconds to import

        self._writer = SummaryWriter(str(log_dir), purge_step=resume_at)

    def add_round(self, metrics: Mapping[str, object]) -> None:
        """Write every number in `metrics` at step `metrics["round"]`, and flush it, since runs get killed."""
        step = metrics["round"]
        for key, value in metrics.items():
            if key not in ("round", "time") and isinstance(value, int | float) and not isinstance(value, bool):
                self._writer.add_scalar(_tag(key), value, step)
        self._writer.flush()

    def add_text(self, tag: str, text: str) -> None:
        """A text, in Markdown."""
        self._writer.add_text(tag, text)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Add what the privacy of the run consists of, and close."""
        if summary.get("privacy"):
            facts = {**summary["privacy"], "epsilon_max": summary["epsilon_max"]}
            self.add_text("privacy", "  \n".join(f"{name}: {value}" for name, value in facts.items()))
        self.close()

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _tag(key: str) -> str:
    if key.startswith(_PRIVACY):
        return f"privacy/{key}"
    group, _, name = key.partition("_")
    return f"{group}/{name or 'total'}" if group in _GROUPS else f"clients/{key}"
