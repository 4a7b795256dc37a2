"""Of a vertical run: who holds what, in a picture and a table."""

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fedapp.report.canvas import COLORS, new_axes
from fedapp.report.read import Record, RunData
from fedapp.report.tables import Table
from fedapp.report.units import bytes_text

__all__ = ["parties_plot", "parties_table"]

MOST_PARTIES = 30  # in the picture; the table has all


def _parties(run: RunData) -> dict[str, Record]:
    found = run.summary.get("parties")
    return {str(name): about for name, about in sorted(found.items())} if isinstance(found, dict) else {}


def parties_plot(run: RunData) -> Figure | None:
    """A block for each party: as wide as it has columns, as high as it has rows; filled as far as these are matched."""
    parties = _parties(run)
    if not 0 < len(parties) <= MOST_PARTIES:
        return None
    figure, axes = new_axes("rows", xlabel="columns, and labels", grid=False)
    start, most = 0.0, max(int(about["rows"]) for about in parties.values())
    for name, about in parties.items():
        width, rows = int(about["columns"]) + int(bool(about["labels"])), int(about["rows"])
        matched = min(int(about["matched"]), rows)
        color = COLORS["blue"]
        axes.add_patch(Rectangle((start, 0), width, rows, fill=False, edgecolor=color))
        axes.add_patch(Rectangle((start, 0), width, matched, facecolor=color, alpha=0.35, edgecolor="none"))
        words = f"{name}\n{'labels' if about['labels'] else ''}"
        axes.text(start + width / 2, rows + most * 0.02, words.strip(), ha="center", va="bottom", fontsize=9)
        start += width + max(0.5, 0.02 * width)
    axes.set_xlim(-0.5, start)
    axes.set_ylim(0, most * 1.2)
    return figure


def parties_table(run: RunData) -> Table:
    """A row for each party; none in a run without them."""
    rows = []
    for name, about in _parties(run).items():
        counted = [f"{int(about[key]):,}" for key in ("columns", "rows", "matched", "parameters")]
        share = f"{100 * int(about['matched']) / max(int(about['rows']), 1):.1f} %"
        sent = [bytes_text(float(about[key])) for key in ("bytes_down", "bytes_up")]
        rows.append((name, "labels" if about["labels"] else "", *counted[:3], share, counted[3], *sent))
    if not rows:
        return Table((), ())
    titles = ("party", "role", "columns", "rows", "matched", "of its rows", "parameters", "received", "sent")
    found = run.summary.get("not_hidden")
    note = f"Not hidden: {'; '.join(map(str, found))}." if isinstance(found, list) and found else ""
    return Table(titles, tuple(rows), note)
