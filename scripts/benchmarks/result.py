"""What a benchmark found: single measurements for programs, a table for people, points for a plot."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table as RichTable

__all__ = ["Point", "Result", "Table", "median_and_range"]


class Table:
    """Rows of text under `columns`, for the terminal and as Markdown."""

    def __init__(self, *columns: str, title: str = "") -> None:
        self.columns, self.title = columns, title
        self.rows: list[tuple[str, ...]] = []

    def add_row(self, *cells: str) -> None:
        self.rows.append(cells)

    def rich(self) -> RichTable:
        table = RichTable(title=self.title)
        for column in self.columns:
            table.add_column(column, overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


@dataclass(frozen=True)
class Point:
    """Measurements of one arm in one case, drawn as median and range."""

    case: str
    arm: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Result:
    """`unit` is that of the points' values, as the plot's axis says it. `draw`: makes a plot of its own in a file."""

    rows: list[dict[str, Any]]
    table: Table
    points: list[Point] = field(default_factory=list)
    unit: str = ""
    draw: Callable[[Path], None] | None = None


def median_and_range(values: Sequence[float], digits: int = 3) -> str:
    """E.g. `0.123 (0.120-0.150)`."""
    median, low, high = statistics.median(values), min(values), max(values)
    return f"{median:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"
