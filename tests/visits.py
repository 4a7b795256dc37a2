"""Visits to a doctor with any number of findings at once, as tables in the forms that people write them."""

import random
from pathlib import Path

__all__ = ["COLUMNS", "LABELS", "LISTED", "write_columns", "write_list"]

LABELS = ("fever", "cough", "rash")
COLUMNS = "data.label=[fever,cough,rash]"
LISTED = "data.label=findings data.label_separator=|"


def visits(count: int, seed: int = 1) -> list[tuple[float, float, tuple[bool, ...]]]:
    """Two measurements, and whether each of LABELS was found; the last is rare."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        a, b = draw.gauss(0, 1), draw.gauss(0, 1)
        found = (a + draw.gauss(0, 0.3) > 0, b + draw.gauss(0, 0.3) > 0.3, a - b + draw.gauss(0, 0.3) > 2.6)
        rows.append((a, b, found))
    return rows


def write_columns(
    path: Path, count: int = 300, yes: str = "1", no: str = "0", order: tuple[int, ...] = (0, 1, 2)
) -> str:
    """A column for each label, in this order."""
    header = ["a", "b", *(LABELS[at] for at in order)]
    lines = [[f"{a:.4f}", f"{b:.4f}", *(yes if found[at] else no for at in order)] for a, b, found in visits(count)]
    path.write_text("".join(",".join(line) + "\n" for line in [header, *lines]), encoding="utf-8")
    return str(path)


def write_list(path: Path, count: int = 300, none: str = "No Finding", separator: str = "|") -> str:
    """One column that lists the labels."""
    lines = ["a,b,findings"]
    for a, b, found in visits(count):
        named = separator.join(label for label, there in zip(LABELS, found, strict=True) if there)
        lines.append(f"{a:.4f},{b:.4f},{named or none}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)
