"""Whether two configs compute the same, whatever else they say."""

import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict

from fedapp.config.schema import Config

__all__ = ["FREE", "maths_sha256"]

# Keys that do not change what a round computes. `num_rounds` and the stop rules say only when the run ends.
FREE = frozenset(
    {
        *("federation.num_rounds", "federation.target_accuracy", "federation.patience", "federation.max_seconds"),
        *(
            "federation.max_failed_rounds",
            "federation.evaluate_every",
            "federation.final_evaluation",
            "federation.deliver",
            "federation.min_supernodes",
        ),
        *("federation.wait_timeout", "federation.round_timeout", "run.output_dir", "run.resume"),
        *("run.replay", "rounds.save_every"),
        *("federation.min_delta", "federation.result"),
        *("federation.patience_metric", "run.checkpoint_every", "run.num_supernodes", "run.device"),
        *("run.engine", "run.name", "run.tags", "run.objective", "run.direction", "run.prune", "run.live"),
        "tracker",  # all of it
    }
)


def maths_sha256(config: Config, free: Collection[str] = ()) -> str:
    """One number that tells whether two resolved configs compute the same in a round. `free`: further keys, as
    section.key, that do not change it."""
    found = asdict(config)
    for name in FREE.union(free):
        section, _, key = name.partition(".")
        (found[section] if key else found).pop(key or section, None)
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
