"""The look of the plots, and figures as SVG that follows the page's light or dark mode."""

import html
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fedapp.report.palette import COLORS, DARK

__all__ = ["COLORS", "DARK", "SIZE", "WIDE", "as_share", "legend", "new_axes", "round_axis", "to_png", "to_svg"]

SIZE = (5.6, 3.3)  # inches: two fit side by side on a page, and text stays legible on a phone
WIDE = (11.6, 3.3)  # as wide as two of them
_FEW = 6  # rounds: for fewer, what stands for one would grow out of proportion


def new_axes(ylabel: str, *, xlabel: str = "round", grid: bool = True) -> tuple[Figure, Axes]:
    """An empty figure in the house style. No pyplot, hence no global state."""
    figure = Figure(figsize=SIZE, layout="constrained", facecolor=COLORS["surface"])
    axes = figure.add_subplot(facecolor=COLORS["surface"])
    axes.set_xlabel(xlabel, color=COLORS["muted"], fontsize=10.5)
    axes.set_ylabel(ylabel, color=COLORS["muted"], fontsize=10.5)
    axes.tick_params(colors=COLORS["ink"], labelsize=10, length=3, color=COLORS["grid"])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(COLORS["grid"])
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis="y", color=COLORS["grid"], linewidth=0.8)
    return figure, axes


def round_axis(axes: Axes, rounds: Sequence[int], *, blocks: bool = False) -> None:
    """Ticks at whole rounds. `blocks`, bars or cells, stay slender also where there are few rounds."""
    first, last = min(rounds), max(rounds)
    slack = max(0, _FEW - (last - first + 1)) / 2
    margin = 0.5 + slack if blocks else 0.5
    axes.set_xlim(first - margin, last + margin)
    if slack:
        axes.set_xticks(range(first, last + 1))  # none beyond the rounds there were
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10, steps=[1, 2, 5, 10], integer=True))


def as_share(axes: Axes, *, axis: Literal["x", "y"] = "y") -> None:
    """Show 0..1 as percent, with no room above 100 %."""
    formatter = FuncFormatter(lambda share, _: f"{round(100 * share, 6):g}%")
    if axis == "x":
        axes.xaxis.set_major_formatter(formatter)
    else:
        axes.set_ylim(top=min(axes.get_ylim()[1], 1.012))
        axes.yaxis.set_major_formatter(formatter)


def legend(figure: Figure, axes: Axes, handles: Sequence[Artist] | None = None) -> None:
    """A frameless row above the plot, where it hides no data; of `handles`, or of all that has a label."""
    handles = axes.get_legend_handles_labels()[0] if handles is None else handles
    if handles:
        figure.legend(
            handles=list(handles),
            loc="outside upper left",
            ncols=min(len(handles), 4),  # more would run out of the figure
            frameon=False,
            fontsize=9.5,
            labelcolor=COLORS["ink"],
            handlelength=1.4,
            columnspacing=1.2,
        )


def to_png(figure: Figure, file: Path, *, dpi: float) -> None:
    """As `Figure.savefig` does it, which draws everything once more only to have it laid out."""
    figure.set_dpi(dpi)
    FigureCanvasAgg(figure).print_png(file)  # type: ignore[no-untyped-call]
    figure.set_layout_engine("none")  # stays as it is for the page: laying it out takes as long as drawing it


def to_svg(figure: Figure, *, name: str, alt: str) -> str:
    """`figure` as an `<svg>` element for use inside HTML.

    Its colours become CSS variables (`var(--blue)`), its text stays text, its ids start with `name`, and it is the
    same, byte for byte, for the same figure.
    """
    buffer = io.StringIO()
    # The writer reads these two settings from nowhere else; they are put back at once.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "fedapp"}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.set_facecolor("none")
        FigureCanvasSVG(figure).print_svg(buffer, metadata=nothing)  # type: ignore[no-untyped-call]
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    view_box = re.search(r'viewBox="[^"]*"', text)
    assert view_box is not None
    head = f'<svg {view_box.group()} role="img" aria-label="{html.escape(alt)}">'  # HTML knows the namespaces
    text = re.sub(r"^<svg.*?>", lambda _: head, text, count=1, flags=re.DOTALL)
    text = re.sub(r'( id="|url\(#|xlink:href="#)', rf"\g<1>{name}-", text)
    for color, value in COLORS.items():
        text = text.replace(value, f"var(--{color})")
    return text
