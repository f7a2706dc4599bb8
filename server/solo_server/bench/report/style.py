"""The style sheet of the report."""

from solo_server.bench.report.bars import CONTENDER_COLOURS, STAGE_COLOURS

STYLE = (
    """
:root { color-scheme: light dark; --ink: #16202c; --soft: #5b6b7d; --paper: #f4f6f9; --card: #ffffff; --line: #dde3ea;
  --track: #edf1f5; --mark: #16202c; --muted: #a9b4c0; --warn: #8a4b00; --warn-paper: #fff4e0;
  --shade: #16202c26; --c0: #2f6fed; --c1: #0f8299; --c2: #63b3f5; --c3: #6a62d6; --c4: #1f4e9e; --c5: #5b6f8f;
  --s0: #f2c230; --s1: #b08900; --s2: #8c2f5e; --s3: #8a5a3b; --s4: #d0a07a; --s5: #2e9e5b; --s6: #ef7d22; --s7: #d6336c;
  --s8: #8db600; --s9: #a63a2e; --s10: #ad4fb8; --s11: #f19bb8; --s12: #4d7c2a; --s13: #e2725b; --s14: #7d6608; --s15: #c98bd6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ecf2; --soft: #97a6b6; --paper: #10161d; --card: #18212b; --line: #2a3642;
  --track: #222d38; --mark: #e6ecf2; --muted: #55636f; --warn: #ffcf8a; --warn-paper: #3a2a10;
  --shade: #0009; --c0: #5b93ff; --c1: #35a7c4; --c2: #9ccdf7; --c3: #8f87f5; --c4: #3d74cf; --c5: #8797b5;
  --s0: #f6cf57; --s1: #c9a227; --s2: #b9548a; --s3: #ad7b57; --s4: #dcb592; --s5: #45b873; --s6: #f59445; --s7: #e65a8b;
  --s8: #a5cc2a; --s9: #cb5c4f; --s10: #c474ce; --s11: #f5b3c9; --s12: #6f9f49; --s13: #ec8f7c; --s14: #a58c1f; --s15: #d9a9e3; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; font-variant-numeric: tabular-nums; }
main { max-width: 1120px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .35rem; letter-spacing: -.015em; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .25rem; letter-spacing: -.01em; }
h3 { font-size: .98rem; margin: 0; }
p { margin: 0; }
.lead, figcaption p, .summary, .axis { color: var(--soft); font-size: .86rem; }
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
.title { display: flex; flex-wrap: wrap; justify-content: space-between; align-items: baseline; gap: 0 .8rem; }
.better { color: var(--soft); font-size: .78rem; }
.bars { display: grid; gap: .55rem .8rem; grid-template-columns: fit-content(11rem) 1fr max-content; align-items: center; }
.note { margin: 1.2rem 0 .6rem; color: var(--soft); font-size: .86rem; } .bar-row { display: contents; }
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
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0; margin: .5rem 0 .9rem; font-size: .83rem;
  color: var(--soft); }
.key { display: inline-block; width: .75rem; height: .75rem; border-radius: .2rem; margin-right: .4rem; vertical-align: -1px; }
.scroll { overflow-x: auto; scrollbar-width: thin; background:
  linear-gradient(to left, var(--card) 40%, transparent) right / 3rem 100% no-repeat local,
  linear-gradient(to left, var(--shade), transparent) right / .8rem 100% no-repeat scroll; }
.bars + .scroll, .scroll + .scroll { margin-top: 1.2rem; }
table { border-collapse: collapse; width: 100%; font-size: .86rem; }
th, td { padding: .4rem .65rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
thead th { color: var(--soft); font-weight: 500; } tbody th { font-weight: 600; }
th:first-child { text-align: left; padding-left: 0; position: sticky; left: 0; background: var(--card); }
tbody tr:last-child > * { border-bottom: 0; }
.facts th { color: var(--soft); font-weight: 500; vertical-align: top; width: 9rem; white-space: normal; overflow-wrap: anywhere; }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.muted { fill: var(--muted); background: var(--muted); }
"""
    + "\n".join(
        f".{name} {{ fill: var(--{name}); background: var(--{name}); stroke: none; }} .stroke.{name} {{ stroke: var(--{name}); }}"
        f" .part.{name} {{ stroke: var(--card); }}"
        for name in (*(f"c{i}" for i in range(CONTENDER_COLOURS)), *(f"s{i}" for i in range(STAGE_COLOURS)))
    )
    + """
@media (max-width: 560px) { main { padding: 1.25rem .9rem 3rem; }
  .bars { display: block; } .bar-row svg { order: 3; grid-column: 1 / -1; }
  .bar-row { display: grid; grid-template-columns: 1fr max-content; gap: .1rem .8rem; margin-bottom: .6rem; }
  tbody th { white-space: normal; min-width: 7rem; } .facts th { min-width: 0; width: 6.5rem; } }
"""
)
