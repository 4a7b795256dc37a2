"""The pages' style and frame, and the report's page.

Python strings, since the bundle that Flower sends around leaves .html files behind.
"""

from typing import Any

from jinja2 import Environment, StrictUndefined

from fedapp.report.palette import COLORS, DARK

__all__ = ["CSS", "PAGE", "opened", "render"]

CSS = """
:root { color-scheme: light dark; --page: #f5f7f9; --good: #1a7f4b; --bad: #b3261e; --fair: #8a5a00;
  {% for name, value in light.items() %}--{{ name }}: {{ value }}; {% endfor %} }
@media (prefers-color-scheme: dark) { :root { --page: #0d1117; --good: #3fb97a; --bad: #ff8078; --fair: #e0aa4a;
  {% for name, value in dark.items() %}--{{ name }}: {{ value }}; {% endfor %} } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.45;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; }
main, header > div, footer { max-width: 1180px; margin: 0 auto; padding: 0 20px; }
header { background: var(--surface); border-bottom: 1px solid var(--grid); padding: 22px 0 18px; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 12px 0 0; display: inline; }
h2 { font-size: 1.15rem; margin: 30px 0 12px; }
h3 { font-size: 1rem; margin: 0 0 2px; }
p { margin: 0; }
.muted, figcaption p, .note { color: var(--muted); font-size: .875rem; }
.title { display: flex; flex-wrap: wrap; align-items: center; gap: 8px 0; }
.status { font-size: .875rem; font-weight: 600; border: 1px solid currentColor; border-radius: 999px;
  padding: 2px 12px; }
.status::before { content: ""; display: inline-block; width: .55em; height: .55em; border-radius: 50%;
  background: currentColor; margin-right: .5em; }
.good { color: var(--good); } .bad { color: var(--bad); } .fair { color: var(--fair); }
.cards { display: flex; flex-wrap: wrap; gap: 10px; margin: 18px 0 0; padding: 0; }
.cards div, figure, .table, details { background: var(--surface); border: 1px solid var(--grid); border-radius: 10px; }
.cards div { flex: 1 1 130px; padding: 10px 14px; }
.cards dt { color: var(--muted); font-size: .8125rem; }
.cards dd { margin: 0; font-size: 1.4rem; font-weight: 600; line-height: 1.35; white-space: nowrap; }
.cards dd.note { font-size: .8125rem; font-weight: 400; white-space: normal; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 16px; }
.wide { grid-column: 1 / -1; }
figure { margin: 0; padding: 16px 18px 10px; display: flex; flex-direction: column; }
figcaption { margin-bottom: 10px; }
.scroll { margin-top: auto; overflow-x: auto; }
figure svg { display: block; width: 100%; height: auto; stroke-linejoin: round; }
figure svg text { font-family: inherit !important; }
.table { overflow: auto; max-height: 25rem; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 9px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--grid); }
thead th { position: sticky; top: 0; background: var(--surface); color: var(--muted); font-weight: 600; }
tbody th { font-weight: 600; }
tbody tr:last-child > * { border-bottom: 0; }
.words td:last-child, .words th:last-child { text-align: left; white-space: normal; width: 100%; min-width: 14rem;
  overflow-wrap: anywhere; }
.note { margin: 6px 2px 0; }
details { padding: 12px 18px; margin-bottom: 12px; }
summary { cursor: pointer; font-weight: 600; }
pre { overflow: auto; font-size: .8125rem; margin: 12px 0 0; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, "Liberation Mono", monospace; overflow-wrap: anywhere; }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin: 12px 0 0; font-size: .875rem; }
dl.facts dt { color: var(--muted); } dl.facts dd { margin: 0; }
footer { padding: 16px 20px 32px; }
@media (max-width: 560px) {
  main, header > div, footer { padding-left: 12px; padding-right: 12px; }
  figure { padding: 14px 10px 8px; } .wide svg { min-width: 680px; }
  dl.facts { grid-template-columns: 1fr; } dl.facts dd { margin-bottom: 6px; }
}
@media print { .table { max-height: none; } }
"""

TABLE = """
{% macro show(title, table, kind="") %}
{% if table.rows %}
<h2>{{ title }}</h2>
<div class="table {{ kind }}" role="region" aria-label="{{ title }}" tabindex="0">
<table>
<thead><tr>{% for column in table.columns %}<th scope="col">{{ column }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr>{% for cell in row %}
{%- if loop.first %}<th scope="row">{{ cell }}</th>{% else %}<td>{{ cell }}</td>{% endif %}
{%- endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% if table.note %}<p class="note">{{ table.note }}</p>{% endif %}
{% endif %}
{% endmacro %}
"""


def opened(title: str) -> str:
    """How every page begins, as a template, up to what its body shows."""
    # The policy makes the browser itself refuse anything from a network.
    return f"""{TABLE}<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{CSS}</style>
</head>
<body>
"""


def render(page: str, **values: Any) -> str:
    """A page with its values, in which whatever is not marked as safe stays text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(page).render(light=COLORS, dark=DARK, **values)


PAGE = (
    opened("{{ title }}: {{ status }}")
    + """<header><div>
<div class="title"><h1>{{ title }}</h1> <span class="status {{ mood }}">{{ status }}</span></div>
<p class="muted">{% if reason %}{{ reason }} · {% endif %}run <code>{{ run }}</code></p>
<dl class="cards">
{% for card in cards %}
<div><dt>{{ card.label }}</dt><dd>{{ card.value }}</dd>
{%- if card.note %}<dd class="note">{{ card.note }}</dd>{% endif %}</div>
{% endfor %}
</dl>
</div></header>
<main>
{{ show("Warnings", warnings, "words") }}
{% if plots %}
<h2>Plots</h2>
<div class="plots">
{% for plot in plots %}
<figure id="{{ plot.name }}"{% if plot.wide %} class="wide"{% endif %}>
<figcaption><h3>{{ plot.title }}</h3><p>{{ plot.caption }}</p></figcaption>
<div class="scroll">{{ plot.svg }}</div>
</figure>
{% endfor %}
</div>
{% endif %}
{{ show("Parties", parties) }}
{{ show("Labels", labels) }}
{{ show("Privacy", privacy, "words") }}
{{ show("Rounds", rounds) }}
{{ show("Rejections", rejections, "words") }}
{{ show("Clients", clients) }}
<h2>Reproduce</h2>
<details><summary>Config</summary><pre tabindex="0">{{ config }}</pre></details>
<details><summary>Versions and model</summary><dl class="facts">
{% for name, value in facts %}<dt>{{ name }}</dt><dd><code>{{ value }}</code></dd>
{% endfor %}</dl></details>
</main>
<footer class="muted">Drawn from the files beside this page: config.yaml, metrics.jsonl, clients.jsonl, summary.json.
</footer>
</body>
</html>
"""
)
