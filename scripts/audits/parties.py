"""Parties of task=vertical: what do gradients tell of labels, and embeddings of inputs?"""

import argparse
from dataclasses import asdict
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from audits.result import write_result
from fedapp.audit.embedding_attack import audit_embeddings
from fedapp.audit.label_attacks import audit_labels
from fedapp.config import compose
from fedapp.vertical.vertical_options import vertical_options

__all__ = ["attack_parties"]

PROTECTIONS = (
    "vertical/label_privacy=none",
    "vertical/label_privacy=noise",
    "vertical/label_privacy=noise vertical.label_privacy.scale=1",
    "vertical/label_privacy=label_dp",
    "vertical/label_privacy=label_dp vertical.label_privacy.epsilon=3",
)
FUSIONS = ("vertical/fusion=concat", "vertical/fusion=sum vertical.fusion.masked=true")


def attack_parties(console: Console, options: argparse.Namespace, directory: Path) -> int:
    """Attack the labels of a vertical run, under each option that protects them, and single parties' embeddings."""
    overrides = options.overrides
    table = Table("label privacy", "norm", "direction", "completion", "held out", box=SIMPLE_HEAD, padding=(0, 1))
    rows = []
    for name in PROTECTIONS:
        shown = name.partition("=")[2].replace("vertical.label_privacy.", "")
        found = audit_labels(compose([*overrides, *name.split()]), shown)
        rows.append(asdict(found))
        figures = (found.norm, found.direction, found.completion)
        held_out = ", ".join(f"{metric} {value:.4f}" for metric, value in found.metrics.items())
        table.add_row(found.name, *(f"{figure:.3f}" for figure in figures), held_out)
    fused = Table("fusion", "party", "times each", "share found", "held out", box=SIMPLE_HEAD, padding=(0, 1))
    embeddings = []
    masks = len(vertical_options(compose([*overrides, FUSIONS[0]])).names) > 2  # a mask needs two parties
    for name in FUSIONS if masks else FUSIONS[:1]:
        audited = audit_embeddings(compose([*overrides, *name.split()]), name.partition("=")[2].partition(" ")[0])
        embeddings.append(asdict(audited))
        held_out = ", ".join(f"{metric} {value:.4f}" for metric, value in audited.metrics.items())
        for party, share in audited.found.items():
            fused.add_row(audited.name, party, f"{audited.repeated[party]:.1f}", f"{share:.3f}", held_out)
    found_all = {"overrides": list(overrides), "labels": rows, "embeddings": embeddings}
    write_result(directory, found_all)
    console.print("AUC of attacks on training labels (0.5: nothing is learnt), and the model's metrics", soft_wrap=True)
    console.print(table)
    console.print(
        "Share of the variance of single embeddings that the label party finds (1: all but for a constant), and how"
        " often each entity occurs",
        soft_wrap=True,
    )
    console.print(fused)
    return 0
