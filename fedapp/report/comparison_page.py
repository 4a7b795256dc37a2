"""A comparison's page and picture, drawn from its comparison.json alone."""

import json
import os
from pathlib import Path

from markupsafe import Markup

from fedapp.report.canvas import to_png, to_svg
from fedapp.report.comparison_plot import comparison_plot
from fedapp.report.comparison_tables import cost_rows, gain_rows, remarks, site_rows
from fedapp.report.tables import Table
from fedapp.report.template import opened, render

__all__ = ["write_comparison"]

PAGE = (
    opened("Should these sites federate?")
    + """<header><div>
<div class="title"><h1>Should these sites federate?</h1></div>
<p>{{ verdict }}</p>
<p class="muted">{{ overrides }}</p>
</div></header>
<main>
<section id="comparison">
<h2>By site</h2>
<div class="plots"><figure class="wide">
<figcaption><h3>{{ metric }}, {{ direction }}</h3><p>{{ caption }}</p></figcaption>
<div class="scroll">{{ svg }}</div>
</figure></div>
{{ show("Figures", sites) }}
{{ show("Gains", gains) }}
{{ show("Costs", costs) }}
{{ show("Remarks", remarks, "words") }}
</section>
</main>
<footer class="muted">Drawn from comparison.json beside this page.</footer>
</body>
</html>
"""
)


def write_comparison(directory: Path) -> Path:
    """Write `comparison.html` and `comparison.png` into `directory`; returns the page's path."""
    result = json.loads((directory / "comparison.json").read_text("utf-8"))
    figure = comparison_plot(result)
    to_png(figure, directory / "comparison.png", dpi=160)
    caption = (
        f"Of all models on the same held-out rows; lines are 95 % intervals by {result['draws']:,} draws with"
        f" replacement of whole units ({_unit(result)}). Seeds: {', '.join(map(str, result['seeds']))}."
    )
    svg = to_svg(figure, name="comparison", alt=f"{result['metric']} by site and arm. {caption}")
    said = remarks(result)
    text = render(
        PAGE,
        verdict=result["verdict"],
        overrides=" ".join(result["overrides"]),
        metric=result["metric"],
        direction="less is better" if result["lower_is_better"] else "more is better",
        caption=caption,
        svg=Markup(svg),  # to_svg escapes what it is given
        sites=_table(*site_rows(result), note=f"Same work: {result['same_work']}."),
        gains=_table(*gain_rows(result), note="* beyond chance: p < 0.05 after Holm's correction over the sites."),
        costs=_table(*cost_rows(result), note="Per seed; of alone, all sites together."),
        remarks=_table(["", "said"], [[str(number), text] for number, text in enumerate(said, 1)]),
    )
    page = directory / "comparison.html"
    draft = page.with_suffix(".html.tmp")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, page)
    return page


def _unit(result: dict[str, list[dict[str, str]]]) -> str:
    return " or ".join(sorted({site["unit"] for site in result["sites"]}))


def _table(titles: list[str], rows: list[list[str]], note: str = "") -> Table:
    return Table(tuple(titles), tuple(tuple(row) for row in rows), note)
