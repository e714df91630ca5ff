"""The look of the page: light and dark, wide and narrow; nothing is fetched from anywhere.

The colours are those of Okabe and Ito, which people with colour-blindness can tell apart; lines
differ by their dashes, too.
"""

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --page: #fdfdfc; --text: #1c1e21; --faint: #5d6670;
  --line: #d5d9de; --box: #f2f4f6; --victim: #0068a8; --cgroup: #b07400; --limit: #c04a00;
  --free: #00805c; --swap: #8a4f7d; --other: #7a8590; }
@media (prefers-color-scheme: dark) { :root { --page: #15181b; --text: #e6e8ea; --faint: #a3adb7;
  --line: #363c43; --box: #1e2327; --victim: #56b4e9; --cgroup: #e69f00; --limit: #f0824a;
  --free: #2fc79b; --swap: #d79bc6; --other: #98a3ae; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 62rem; background: var(--page);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.45rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .5rem 0; max-width: 46rem; }
.faint, figcaption, th { color: var(--faint); }
.verdict { background: var(--box); border-left: .3rem solid var(--limit); padding: .6rem .9rem;
  max-width: none; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .5rem 0; }
dt { color: var(--faint); } dd { margin: 0; }
li { margin: .4rem 0; max-width: 46rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th.number, td.number { text-align: right; white-space: nowrap; }
th.number:first-child, td.number:first-child { text-align: left; }
th:last-child, td:last-child { padding-right: 0; }
h1, p, li, dd, td, .key, .mark { unicode-bidi: isolate; }
tr.dead td { color: var(--limit); font-weight: 600; }
em { font: normal .78rem system-ui, sans-serif; border: 1px solid; border-radius: .2rem;
  padding: 0 .3rem; }
pre { background: var(--box); padding: .7rem; font-size: .8rem; white-space: pre-wrap; }
pre span { display: block; padding-left: 2ch; text-indent: -2ch; }
figure { margin: 1rem 0 2.4rem; }
figcaption { margin-bottom: .7rem; font-size: .9rem; }
figcaption strong { color: var(--text); margin-right: .6rem; }
.key { display: inline-block; margin-right: .9rem; }
.swatch { display: inline-block; width: 1.4rem; border-top: .2rem solid; margin-right: .35rem;
  vertical-align: middle; }
.plot { position: relative; height: 15rem; margin-left: 4.4rem; margin-right: 1.2rem; }
.plot svg { position: absolute; width: 100%; height: 100%; overflow: visible; }
.plot path { fill: none; vector-effect: non-scaling-stroke; }
.grid { stroke: var(--line); stroke-width: 1; }
.kill { stroke: var(--faint); stroke-width: 1; }
.line { stroke-width: 2; stroke-linejoin: round; }
.dot { stroke-width: 6; stroke-linecap: round; }
path.victim { stroke: var(--victim); } .swatch.victim { border-color: var(--victim); }
path.line.victim { stroke-width: 2.6; }
path.cgroup { stroke: var(--cgroup); stroke-dasharray: 8 3; }
.swatch.cgroup { border-color: var(--cgroup); border-top-style: dashed; }
path.limit { stroke: var(--limit); stroke-dasharray: 2 3; }
.swatch.limit { border-color: var(--limit); border-top-style: dotted; }
path.free { stroke: var(--free); stroke-dasharray: 12 4; }
.swatch.free { border-color: var(--free); border-top-style: dashed; }
path.swap { stroke: var(--swap); stroke-dasharray: 4 4; }
.swatch.swap { border-color: var(--swap); border-top-style: dotted; }
path.other0, path.other1, path.other2 { stroke: var(--other); stroke-width: 1.4; }
path.other1 { stroke-dasharray: 6 3; } path.other2 { stroke-dasharray: 2 2; }
.swatch.other0, .swatch.other1, .swatch.other2 { border-color: var(--other); }
.swatch.other1 { border-top-style: dashed; } .swatch.other2 { border-top-style: dotted; }
.x, .y { position: absolute; font-size: .78rem; color: var(--faint); white-space: nowrap;
  line-height: 1; }
.y { right: 100%; margin-right: .5rem; transform: translateY(50%); }
.x { top: 100%; margin-top: .5rem; transform: translateX(-50%); }
.mark { position: absolute; font-size: .78rem; line-height: 1; white-space: nowrap; margin: .45rem;
  font-weight: 600; text-shadow: 0 0 3px var(--page), 0 0 3px var(--page), 0 0 3px var(--page); }
.mark.victim { color: var(--victim); } .mark.limit { color: var(--limit); }
.mark.before { transform: translateX(-100%) translateX(-.9rem); }
.mark.below { transform: translateY(100%) translateY(.9rem); }
.mark.before.below { transform: translate(-100%, 100%) translate(-.9rem, .9rem); }
@media (max-width: 34rem) { .plot { height: 12rem; margin-left: 3.9rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .4rem; }
  ul { padding-left: 1.2rem; }
  pre { font-size: .72rem; padding: .5rem; } thead { display: none; }
  tr { display: flex; flex-wrap: wrap; column-gap: .9rem; padding: .3rem 0;
    border-bottom: 1px solid var(--line); }
  td { border: 0; padding: 0; } td:empty { display: none; } td[data-label="name"] { flex: 1 0 60%; }
  td::before { content: attr(data-label) " "; color: var(--faint); font-weight: 400; }
  td[data-label="#"]::before, td[data-label="name"]::before { content: none; } }
@media (max-width: 24rem) { .x.odd { display: none; } }
""".strip()
