"""A page that draws several runs over each other: one HTML file that needs no network."""

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.figure import Figure

from fedapp.report.canvas import COLORS, legend, new_axes, round_axis, to_svg
from fedapp.report.runs import COLUMNS, FoundRun
from fedapp.report.series import Series, by_round, headline_metric
from fedapp.report.tables import Table
from fedapp.report.template import opened, render
from fedapp.report.units import title_of

__all__ = ["runs_page"]

LINES = ("blue", "vermillion", "green", "purple", "orange", "sky")
STYLES = ("-", "--", ":")
MOST = len(LINES) * len(STYLES)  # lines that can be told apart

PAGE = (
    opened("{{ number }} runs")
    + """<header><div class="title"><h1>{{ number }} runs</h1></div></header>
<main>
{{ show("Runs", table, "words") }}
<h2>Plots</h2>
{% if note %}<p class="note">{{ note }}</p>{% endif %}
<div class="plots">
{% for title, svg in plots %}
<figure><figcaption><h3>{{ title }}</h3></figcaption><div class="scroll">{{ svg }}</div></figure>
{% endfor %}
</div>
</main>
</body>
</html>
"""
)


def runs_page(runs: Sequence[FoundRun]) -> str:
    """The page. Of more than `MOST` runs the newest are drawn; the table has all."""
    drawn = runs[-MOST:]
    metrics = [name for run in drawn if (name := headline_metric(run.data)) is not None]
    keys = [f"{side}_{name}" for name in dict.fromkeys((*metrics, "loss")) for side in ("test", "val")]
    keys += ["train_loss", "epsilon_max", "bytes_up", "seconds"]
    figures = [(key, _figure(drawn, key)) for key in keys]
    plots = [
        (_title(key), Markup(to_svg(figure, name=key, alt=f"{_title(key)} of each run by round")))  # to_svg escapes
        for key, figure in figures
        if figure is not None
    ]
    note = f"The newest {MOST} runs are drawn." if len(runs) > MOST else ""
    table = Table(COLUMNS, tuple(run.cells() for run in runs))
    return render(PAGE, number=len(runs), table=table, plots=plots, note=note)


def _title(key: str) -> str:
    side, _, name = key.partition("_")
    words = {"test": "on the server's test data", "val": "on the clients' validation data", "train": "in training"}
    return f"{title_of(name)} {words[side]}" if side in words else title_of(key)


def _figure(runs: Sequence[FoundRun], key: str) -> Figure | None:
    """A line for each run that has figures of `key`."""
    lines: list[tuple[int, str, Series]] = [
        (index, run.name, found) for index, run in enumerate(runs) if (found := by_round(run.data, key))
    ]
    if not lines:
        return None
    figure, axes = new_axes(title_of(key))
    for index, name, series in lines:
        color, style = LINES[index % len(LINES)], STYLES[index // len(LINES)]
        label = "".join(letter if letter.isprintable() and letter not in "$\\" else "?" for letter in name)
        axes.plot(
            series.rounds,
            series.values,
            label=(label if len(label) <= 24 else f"…{label[-23:]}").lstrip("_") or "run",
            color=COLORS[color],
            linestyle=style,
            linewidth=1.8,
        )
    round_axis(axes, [index for _, _, series in lines for index in series.rounds])
    legend(figure, axes)
    return figure
