"""The style sheet of the report."""

from solo_server.bench.report.bars import COLOURS

STYLE = (
    """
:root { color-scheme: light dark; --ink: #16202c; --soft: #5b6b7d; --paper: #f4f6f9; --card: #ffffff; --line: #dde3ea;
  --track: #edf1f5; --mark: #16202c; --muted: #a9b4c0; --warn: #8a4b00; --warn-paper: #fff4e0;
  --c0: #2f6fed; --c1: #ef8a17; --c2: #16a085; --c3: #8e5bd0; --c4: #d9466f; --c5: #7a9a01; --c6: #0c93c4; --c7: #a8713a;
  --c8: #5d6d7e; --c9: #c0a000; --c10: #3b4cca; --c11: #b03a2e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ecf2; --soft: #97a6b6; --paper: #10161d; --card: #18212b; --line: #2a3642;
  --track: #222d38; --mark: #e6ecf2; --muted: #55636f; --warn: #ffcf8a; --warn-paper: #3a2a10;
  --c0: #5b93ff; --c1: #f7a440; --c2: #2cc3a4; --c3: #ae85ea; --c4: #f06b92; --c5: #a3c62b; --c6: #38b6e8; --c7: #cf9760;
  --c8: #8fa1b3; --c9: #e0c33c; --c10: #8291ff; --c11: #f0857a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; font-variant-numeric: tabular-nums; }
main { max-width: 1120px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .35rem; letter-spacing: -.015em; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .25rem; letter-spacing: -.01em; }
h3 { font-size: .98rem; margin: 0; }
p { margin: 0; }
.lead, figcaption p, .told, .axis, .note { color: var(--soft); font-size: .86rem; }
.lead { max-width: 75ch; }
.warn { margin: 1rem 0 0; padding: .6rem .9rem; border-radius: .6rem; background: var(--warn-paper); color: var(--warn); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .8rem; margin: 1.1rem 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: .8rem; padding: .75rem 1rem; }
.tile b { display: block; font-size: 1.45rem; line-height: 1.25; letter-spacing: -.02em; }
.tile span { color: var(--soft); font-size: .82rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: .9rem; margin-top: 1rem; }
.card { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: .8rem; padding: 1rem 1.1rem 1.1rem;
  min-width: 0; }
.wide { grid-column: 1 / -1; }
figcaption { margin-bottom: .8rem; }
.bars { display: grid; gap: .55rem .8rem; grid-template-columns: fit-content(11rem) 1fr max-content; align-items: center; }
.bars + .bars, .note { margin-top: .9rem; } .bar-row { display: contents; } .bars .legend { grid-column: 1 / -1; }
.bar-label { overflow-wrap: anywhere; font-size: .88rem; line-height: 1.25; }
.bar-value { text-align: right; font-size: .88rem; font-weight: 600; }
svg { display: block; width: 100%; overflow: visible; }
.bar { height: 18px; } .tall { height: 26px; }
.plot { height: 200px; margin-top: 1.2rem; } .low { height: 96px; border-bottom: 1px solid var(--line); }
.chart + .chart { margin-top: 1.2rem; }
.track { fill: var(--track); }
.whisker { stroke: var(--ink); stroke-width: 1.5; } .mark { stroke: var(--mark); stroke-width: 1.5; stroke-dasharray: 3 3; }
.grid { stroke: var(--line); stroke-width: 1; } .stroke { stroke-width: 2.5; stroke-linecap: round; }
.percentile { stroke: var(--ink); stroke-width: 1.25; stroke-dasharray: 4 3; } .p90 { opacity: .7; } .p99 { opacity: .45; }
.tick { fill: var(--soft); font-size: 11px; } .value { fill: var(--ink); font-size: 12px; font-weight: 600; }
.part { stroke: var(--card); stroke-width: 1.5; }
.axis { display: flex; margin-top: .3rem; } .ends { justify-content: space-between; }
.levels span { flex: 1; text-align: center; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0; margin: .5rem 0 0; font-size: .83rem;
  color: var(--soft); }
.key { display: inline-block; width: .75rem; height: .75rem; border-radius: .2rem; margin-right: .4rem; vertical-align: -1px; }
.scroll { overflow-x: auto; }
.scroll + .scroll { margin-top: 1.2rem; }
table { border-collapse: collapse; width: 100%; font-size: .86rem; }
th, td { padding: .4rem .65rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
thead th { color: var(--soft); font-weight: 500; } tbody th { font-weight: 600; }
th:first-child { text-align: left; padding-left: 0; }
tbody tr:last-child > * { border-bottom: 0; }
.facts th { color: var(--soft); font-weight: 500; vertical-align: top; width: 9rem; }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.muted { fill: var(--muted); background: var(--muted); }
"""
    + "\n".join(
        f".c{i} {{ fill: var(--c{i}); background: var(--c{i}); stroke: none; }} .stroke.c{i} {{ stroke: var(--c{i}); }}"
        f" .part.c{i} {{ stroke: var(--card); }}"
        for i in range(COLOURS)
    )
    + """
@media (max-width: 560px) { main { padding: 1.25rem .9rem 3rem; }
  .bars { display: block; } .bar-row svg { order: 3; grid-column: 1 / -1; }
  .bar-row { display: grid; grid-template-columns: 1fr max-content; gap: .1rem .8rem; margin-bottom: .6rem; }
  .facts th { width: 6.5rem; } }
"""
)
