"""The live page's HTML and style. Python strings, since Flower's bundle leaves other files behind."""

from fedapp.report.template import CSS

__all__ = ["HTML", "STYLE"]

STYLE = (
    CSS
    + """
[hidden] { display: none !important; }
.waiting, .stopped { color: var(--fair); } .running, .finished { color: var(--good); } .failed { color: var(--bad); }
progress { width: 100%; height: 10px; accent-color: var(--good); margin-top: 12px; }
.plot { position: relative; padding-left: 3.5rem; } .plot svg { width: 100%; height: 200px; }
.plot span { position: absolute; left: 0; color: var(--muted); font-size: .75rem; }
#high { top: 0; } #low { bottom: 0; }
svg polyline { fill: none; stroke-width: 2; vector-effect: non-scaling-stroke; }
:focus-visible { outline: 3px solid #0072b2; outline-offset: 2px; }
.gone { border: 1px solid currentColor; border-radius: 10px; padding: 10px 14px; margin-top: 14px; }
select, input, button { font: inherit; font-size: .875rem; max-width: 100%; color: inherit; background: var(--surface);
  border: 1px solid var(--grid); border-radius: 6px; padding: 3px 8px; }
button:disabled { color: var(--muted); }
.pages { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; margin: 8px 0; }
main > .note { margin-bottom: 8px; }
h1, td, th, li, code, #reason { overflow-wrap: anywhere; }
#rejections td, #sites th { white-space: normal; text-align: left; } #sites th { min-width: 4rem; }
#find { flex: 1 1 6rem; max-width: 14rem; } .words tbody th { text-align: left; }
.words table { table-layout: fixed; } .words thead th:first-child { width: 4.5rem; }
.words thead th:nth-child(2) { width: 34%; } thead th { overflow-wrap: normal; }
#warnings ul { padding-left: 1.2rem; }
.words thead th, main thead th:first-child { text-align: left; }
.skip { position: absolute; left: -999px; } .skip:focus { position: static; }
@media (max-width: 560px) { th, td { padding: 5px 6px; } thead th { white-space: normal; }
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
<figure><div class="plot"><span id="high" aria-hidden="true"></span><span id="low" aria-hidden="true"></span>
<svg id="plot" viewBox="0 0 600 200" preserveAspectRatio="none" role="img" aria-label="no figures yet"></svg></div>
<p class="note" id="range"></p></figure>
<h2>Rejections</h2>
<p class="note" id="rejected"></p>
<div class="table words" role="region" aria-label="Rejections" tabindex="0"><table>
<thead><tr><th scope="col">round</th><th scope="col">site</th><th scope="col">reason</th></tr></thead>
<tbody id="rejections"></tbody></table></div>
<h2>Sites</h2>
<p class="note" id="counted"></p>
<div class="pages" id="pages" hidden><label for="find">Find</label> <input id="find" type="search" maxlength="100">
<button id="before" type="button">Previous</button> <button id="after" type="button">Next</button></div>
<div class="table" role="region" aria-label="Sites" tabindex="0"><table>
<thead><tr><th scope="col">site</th><th scope="col">last round</th><th scope="col">took part</th>
<th scope="col">rejected</th><th scope="col">ε spent</th></tr></thead>
<tbody id="sites"></tbody></table></div>
</main>
<footer class="muted"><code id="directory"></code></footer>
<script src="script.js"></script>
</body>
</html>
"""
