"""How the report looks: one style sheet, light and dark, wide and narrow. Holds no data."""

from cogbatch.eval.markup import Html

CSS = Html("""
:root {
  color-scheme: light dark;
  --paper: #fbfbfa; --card: #fff; --ink: #1c1d1f; --quiet: #5c6068; --line: #dcdee2;
  --good: #17663a; --bad: #a3241b; --mark: #fbeab5; --mark-ink: #4d3a00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #131416; --card: #1c1e21; --ink: #e8e8e6; --quiet: #a3a8b0; --line: #35383d;
    --good: #6cd19a; --bad: #ff9a8f; --mark: #4a3c0c; --mark-ink: #fbe9ae;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1rem; max-width: 80rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere;
}
h1 { margin: 0; font-size: 1.6rem; }
h2 { margin: 2rem 0 .5rem; font-size: 1.2rem; }
h3 { margin: 0; font-size: 1rem; }
p { margin: .25rem 0; }
small { display: block; color: var(--quiet); font-weight: normal; }
code { font-size: .85em; }
.quiet { color: var(--quiet); font-size: .875rem; }
.bad, .bad strong { color: var(--bad); }
.good strong { color: var(--good); }
.text { white-space: pre-wrap; }
dl { margin: 0; }
dt { color: var(--quiet); font-size: .875rem; }
dd { margin: 0; }
.figures { display: flex; flex-wrap: wrap; gap: .5rem 2rem; }
.figures dd { font-size: 1.5rem; font-variant-numeric: tabular-nums; }
.settings { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: .5rem 1rem; }
details { margin-top: .75rem; }
summary { cursor: pointer; }
.checks { list-style: none; margin: .75rem 0 0; padding: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: .3rem clamp(.5rem, 2vw, 1.5rem) .3rem 0; border-top: 1px solid var(--line); }
th, td { text-align: start; vertical-align: top; overflow-wrap: normal; }
th:not(:first-child) { text-align: end; }
.number { text-align: end; font-variant-numeric: tabular-nums; white-space: nowrap; }
.gallery {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: 1rem;
  margin-top: .75rem;
}
article { padding: 1rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
article img { display: block; max-width: 100%; height: auto; margin: .5rem 0; border-radius: .25rem; }
.note {
  margin: .5rem 0; padding: 1rem; border: 1px dashed var(--line); color: var(--quiet); font-size: .875rem;
}
.prompt { font-weight: 600; }
ul { margin: .25rem 0 .75rem; padding-inline-start: 1.25rem; }
ol { margin: .5rem 0 0; padding-inline-start: 1.75rem; }
li + li { margin-top: .4rem; }
li small { font-variant-numeric: tabular-nums; }
.repeat .text { color: var(--quiet); }
mark { padding: 0 .3rem; border-radius: .2rem; background: var(--mark); color: var(--mark-ink); }
@media (max-width: 30rem) { table { font-size: .85rem; } }
@media print { article { break-inside: avoid; } }
""")
