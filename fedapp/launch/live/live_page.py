"""The live page's HTML, style and script. Python strings, since Flower's bundle leaves other files behind.

Whatever came from a site is put into the page as text (`textContent`), never as markup.
"""

from fedapp.report.template import CSS

__all__ = ["HTML", "SCRIPT", "STYLE"]

STYLE = (
    CSS
    + """
.waiting, .stopped { color: var(--fair); } .running, .finished { color: var(--good); } .failed { color: var(--bad); }
progress { width: 100%; height: 10px; accent-color: var(--good); margin-top: 12px; }
svg { width: 100%; height: 200px; display: block; }
svg polyline { fill: none; stroke-width: 2; vector-effect: non-scaling-stroke; }
:focus-visible { outline: 3px solid #0072b2; outline-offset: 2px; }
.gone { border: 1px solid currentColor; border-radius: 10px; padding: 10px 14px; margin-top: 14px; }
select { font: inherit; max-width: 100%; }
h1, td, th, li, code, #reason { overflow-wrap: anywhere; }
#rejections td, #sites th { white-space: normal; text-align: left; min-width: 7rem; }
#warnings ul { padding-left: 1.2rem; }
.words thead th, main thead th:first-child { text-align: left; }
.skip { position: absolute; left: -999px; } .skip:focus { position: static; }
@media (max-width: 560px) { th, td { padding: 5px 6px; }
  .cards div { flex-basis: 100px; } .cards dd { font-size: 1.1rem; } }
"""
)

HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fedapp</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="style.css">
</head>
<body>
<a class="skip" href="#main">Skip to the figures</a>
<header><div>
<div class="title"><h1 id="name">fedapp</h1> <span class="status waiting" id="status" role="status">waiting</span></div>
<p class="muted" id="reason"></p>
<p class="gone bad" id="gone" role="alert" hidden>The run's program has ended. This is what it showed last.</p>
<progress id="progress" max="1" value="0" aria-label="rounds done"></progress>
<dl class="cards" id="cards"></dl>
</div></header>
<main id="main">
<section id="warnings" hidden><h2>Warnings</h2><ul></ul></section>
<h2><label for="which">Figure</label> <select id="which"></select></h2>
<figure><svg id="plot" viewBox="0 0 600 200" preserveAspectRatio="none" role="img" aria-label="no figures yet"></svg>
<p class="note" id="range"></p></figure>
<h2>Rejections</h2>
<p class="note" id="rejected"></p>
<div class="table words" role="region" aria-label="Rejections" tabindex="0"><table>
<thead><tr><th scope="col">round</th><th scope="col">site</th><th scope="col">reason</th></tr></thead>
<tbody id="rejections"></tbody></table></div>
<h2>Sites</h2>
<p class="note" id="counted"></p>
<div class="table" role="region" aria-label="Sites" tabindex="0"><table>
<thead><tr><th scope="col">site</th><th scope="col">last replied in round</th><th scope="col">took part</th>
<th scope="col">rejected</th><th scope="col">ε spent</th></tr></thead>
<tbody id="sites"></tbody></table></div>
</main>
<footer class="muted"><code id="directory"></code></footer>
<script src="script.js"></script>
</body>
</html>
"""

SCRIPT = """'use strict';
const at = id => document.getElementById(id);
const say = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const number = value => value === null || value === undefined ? '\\u2013'
  : Math.abs(value) >= 0.001 && Math.abs(value) < 1000 || value === 0 ? String(Math.round(value * 1e4) / 1e4)
  : value.toPrecision(4);
const bytes = count => { const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']; let unit = 0;
  while (count >= 1024 && unit < 4) { count /= 1024; unit += 1; }
  return `${Math.round(count * 10) / 10} ${units[unit]}`; };
const make = (tag, text) => { const node = document.createElement(tag); node.textContent = text; return node; };

function rows(id, lines) {
  const body = at(id), found = JSON.stringify(lines);
  if (body.dataset.shown === found) return;
  body.dataset.shown = found;
  body.replaceChildren(...lines.map(line => {
    const row = document.createElement('tr');
    line.forEach((cell, index) => {
      const node = make(index ? 'td' : 'th', cell);
      if (!index) node.scope = 'row';
      row.append(node);
    });
    return row;
  }));
}

function cards(state) {
  const last = state.last, found = [];
  found.push(['round', `${state.round ?? '\\u2013'} of ${state.num_rounds ?? '\\u2013'}`]);
  if (state.expected_end) found.push(['expected end', new Date(state.expected_end * 1000).toLocaleTimeString()]);
  const main = Object.keys(last).filter(name => name.startsWith('test_') || name.startsWith('val_'))
    .sort((a, b) => b.includes('accuracy') - a.includes('accuracy') || b.startsWith('test') - a.startsWith('test'));
  for (const name of main.slice(0, 2)) found.push([name.replaceAll('_', ' '), number(last[name])]);
  if (last.cohort !== undefined) found.push(['replied', `${number(last.replied)} of ${number(last.cohort)}`]);
  found.push(['rejected', String(state.num_rejected)]);
  if (last.epsilon_max !== undefined) found.push(['highest \\u03b5', number(last.epsilon_max)]);
  found.push(['received', bytes(state.bytes_up)], ['sent', bytes(state.bytes_down)]);
  const list = at('cards'), shown = JSON.stringify(found);
  if (list.dataset.shown === shown) return;
  list.dataset.shown = shown;
  list.replaceChildren(...found.map(([label, value]) => {
    const card = document.createElement('div');
    card.append(make('dt', label), make('dd', value));
    return card;
  }));
}

function plot(state) {
  const names = Object.keys(state.series), choice = at('which'), chosen = choice.value;
  if ([...choice.options].map(o => o.value).join() !== names.join()) {
    choice.replaceChildren(...names.map(name => { const o = make('option', name.replaceAll('_', ' ')); o.value = name;
      return o; }));
    const wanted = names.includes(chosen) ? chosen : names.find(name => name === 'test_accuracy') ?? names[0];
    if (wanted) choice.value = wanted;
  }
  const points = state.series[choice.value] ?? [], svg = at('plot');
  if (!points.length) { svg.replaceChildren(); say(at('range'), 'No figures yet.'); return; }
  const xs = points.map(p => p[0]), ys = points.map(p => p[1]);
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const line = document.createElementNS('http://www.w3.org/2000/svg', 'polyline');
  const place = (value, low, high, size) => 6 + (size - 12) * (high > low ? (value - low) / (high - low) : 0.5);
  line.setAttribute('points', points.map(([x, y]) =>
    `${place(x, x0, x1, 600).toFixed(1)},${(200 - place(y, y0, y1, 200)).toFixed(1)}`).join(' '));
  line.setAttribute('stroke', 'var(--blue)');
  svg.replaceChildren(line);
  const said = `${choice.value.replaceAll('_', ' ')} from round ${x0} to ${x1}: between ${number(y0)}`
    + ` and ${number(y1)}, now ${number(ys[ys.length - 1])}`;
  svg.setAttribute('aria-label', said);
  say(at('range'), said);
}

let shown = null;
function show(state) {
  shown = state;
  say(at('name'), state.name);
  document.title = `${state.status}: ${state.name}`;
  say(at('status'), state.status);
  at('status').className = `status ${['waiting', 'running', 'finished', 'failed', 'stopped'].includes(state.status)
    ? state.status : 'waiting'}`;
  say(at('reason'), state.reason);
  say(at('directory'), state.directory);
  at('progress').max = state.num_rounds || 1;
  at('progress').value = state.round || 0;
  cards(state);
  plot(state);
  at('warnings').hidden = !state.warnings.length;
  at('warnings').querySelector('ul').replaceChildren(...state.warnings.map(text => make('li', text)));
  rows('rejections', state.rejections.map(one => [String(one.round), one.site, one.reason]));
  say(at('rejected'), state.num_rejected > state.rejections.length
    ? `The last ${state.rejections.length} of ${state.num_rejected}.` : state.num_rejected ? '' : 'None so far.');
  rows('sites', state.sites.map(one => [one.site, one.last === null ? '\\u2013' : String(one.last), String(one.taken),
    String(one.rejected), number(one.epsilon)]));
  say(at('counted'), state.num_sites > state.sites.length
    ? `${state.sites.length} of ${state.num_sites}, those first that spent most or were rejected most.`
    : `${state.num_sites} seen so far.`);
}

async function follow() {
  let wait = 1000;
  try {
    const reply = await fetch('state.json', { cache: 'no-store' });
    if (!reply.ok) throw new Error(String(reply.status));
    show(await reply.json());
    at('gone').hidden = true;
  } catch (error) {
    at('gone').hidden = !shown;
    wait = 3000;
  }
  setTimeout(follow, wait);
}
at('which').addEventListener('change', () => shown && plot(shown));
follow();
"""
