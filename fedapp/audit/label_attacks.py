"""What a party without labels learns of them: attacks on vertical learning.

The norm and the direction of gradients (Li et al. 2022, "Label Leakage and Protection in Two-party Split Learning"),
and the completion of a few known labels by the party's own part (Fu et al. 2022, "Label Inference Attacks Against
Vertical Federated Learning").
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedapp.common.errors import ConfigError
from fedapp.common.seeding import generator
from fedapp.config import Config
from fedapp.vertical.pooled import PooledTraining
from fedapp.vertical.vertical_options import vertical_options

__all__ = ["LabelAudit", "auc", "audit_labels", "by_direction", "by_norm", "completed"]

Floats = NDArray[np.float64]
KNOWN = 40  # labels that the attacker knows, for the completion


@dataclass(frozen=True)
class LabelAudit:
    """AUC of each attack on the training labels (0.5: nothing is learnt), and `metrics` of the model on held-out
    entities."""

    name: str
    norm: float
    direction: float
    completion: float
    metrics: dict[str, float]


def audit_labels(config: Config, name: str) -> LabelAudit:
    """Train as the parties would, and attack as the first party without labels by name. Raises ConfigError for a task
    that has no two classes."""
    options = vertical_options(config)
    if len(options.task.schema.classes) != 2:
        raise ConfigError("the attacks on labels are for tasks of two classes")
    training = PooledTraining(config, options, options.names)
    norms: list[tuple[int, float]] = []
    directions: list[tuple[int, float]] = []

    def seen(epoch: int, gradient: Tensor, targets: Tensor) -> None:
        labels = targets.numpy() == 1
        if not gradient.isfinite().all():
            raise ConfigError(
                f"vertical.label_privacy ({name}): the training diverged; lower optimizer.lr or the noise"
            )
        if labels.any() and not labels.all():
            values = gradient.double().numpy()
            norms.append((len(labels), auc(by_norm(values), labels)))
            directions.append((len(labels), auc(by_direction(values), labels)))

    training.train(seen)
    attacker = next(name for name in options.names if name != options.label_party)
    bottom = training.learners[attacker].bottom
    assert bottom is not None
    embeddings = bottom.judge(training.train_rows[attacker]).double().numpy()
    labels = training.true_targets.numpy() == 1
    completion = completed(embeddings, labels, config.run.seed)
    return LabelAudit(name, _mean(norms), _mean(directions), completion, training.judge())


def by_norm(gradient: Floats) -> Floats:
    """(B,) scores of gradients (B, width)."""
    return np.asarray(np.linalg.norm(gradient, axis=1), dtype=np.float64)


def by_direction(gradient: Floats) -> Floats:
    """(B,) scores: the cosine with the main direction of the batch. Gradients of two classes point apart."""
    unit = gradient / np.maximum(np.linalg.norm(gradient, axis=1, keepdims=True), 1e-30)
    main = np.linalg.svd(unit, full_matrices=False)[2][0]
    return np.asarray(unit @ main, dtype=np.float64)


def completed(embeddings: Floats, labels: NDArray[np.bool_], seed: int, known: int = KNOWN) -> float:
    """AUC on the other entities of a logistic regression on `known` labels and the party's own embeddings."""
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
    from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]

    order = torch.randperm(len(labels), generator=generator(seed, "known labels")).numpy()
    own, rest = order[:known], order[known:]
    if len(set(labels[own].tolist())) < 2 or len(set(labels[rest].tolist())) < 2:
        return 0.5
    scaler = StandardScaler().fit(embeddings)
    model = LogisticRegression(max_iter=1000).fit(scaler.transform(embeddings[own]), labels[own])
    return auc(model.decision_function(scaler.transform(embeddings[rest])), labels[rest], either=False)


def auc(scores: Floats, labels: NDArray[np.bool_], *, either: bool = True) -> float:
    """Area under the ROC curve; with `either`, of the scores or their opposite, whichever is more: an attacker finds
    out which class is rare."""
    from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped]

    found = float(roc_auc_score(labels, scores))
    return max(found, 1 - found) if either else found


def _mean(parts: list[tuple[int, float]]) -> float:
    total = sum(count for count, _ in parts)
    return sum(count * value for count, value in parts) / total if total else 0.5
