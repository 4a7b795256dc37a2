"""The live page's script. Whatever came from a site is put into the page as text (`textContent`), never as markup."""

__all__ = ["SCRIPT"]

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
  body.closest('.table').hidden = !lines.length;
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
  choice.hidden = !names.length;
  say(at('high'), ''); say(at('low'), '');
  const points = state.series[choice.value] ?? [], svg = at('plot');
  svg.parentElement.hidden = !points.length;
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
  say(at('high'), number(y1)); say(at('low'), y0 < y1 ? number(y0) : '');
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
  const count = state.sites.length, begin = state.first_site, found = state.num_found;
  const which = found < state.num_sites ? `${found} found among ${state.num_sites}` : `${state.num_sites}`;
  say(at('counted'), count < state.num_sites ? `${count ? `${begin + 1} to ${begin + count} of ` : ''}${which}; `
    + 'those first that spent most or were rejected most.' : `${state.num_sites} seen so far.`);
  at('pages').hidden = count === state.num_sites && !at('find').value;
  at('before').disabled = !begin;
  at('after').disabled = begin + count >= found;
}

let first = 0, asked = 0;
async function refresh() {
  const mine = ++asked;
  try {
    const wanted = new URLSearchParams({ first, find: at('find').value });
    const reply = await fetch(`state.json?${wanted}`, { cache: 'no-store' });
    if (!reply.ok) throw new Error(String(reply.status));
    const state = await reply.json();
    if (mine === asked) show(state);  // else something else has been asked for meanwhile
    at('gone').hidden = true;
  } catch (error) {
    at('gone').hidden = !shown;
    return 3000;
  }
  return 1000;
}
async function follow() { setTimeout(follow, await refresh()); }
const turn = pages => { first = Math.max(0, first + pages * (shown?.page_size ?? 0)); refresh(); };
at('which').addEventListener('change', () => shown && plot(shown));
at('find').addEventListener('input', () => { first = 0; refresh(); });
at('before').addEventListener('click', () => turn(-1));
at('after').addEventListener('click', () => turn(1));
follow();
"""
