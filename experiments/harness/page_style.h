// The style sheet of the result page.
#pragma once

namespace graft {

inline constexpr const char* kPageStyle = R"css(
:root { color-scheme: light dark; --ground: #fff; --ink: #1b1d21; --soft: #5b616b; --line: #d5d9df;
  --panel: #f5f6f8; --link: #0b5cad; --held: #17703c; --not: #b3261e; --open: #8a5a00; --out:
  #5b616b;
  --stripe: #f8f9fa; }
@media (prefers-color-scheme: dark) { :root { --ground: #15171b; --ink: #e4e6ea; --soft: #a2a8b3;
  --line: #3a3f48; --panel: #1e2127; --link: #7db8f5; --held: #6fcf97; --not: #ff8a80;
  --open: #f0b954; --out: #a2a8b3; --stripe: #1a1d22; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem 1rem 4rem; background: var(--ground);
  color: var(--ink); font: 1rem/1.55 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: .5rem 0 1rem; }
h2 { font-size: 1.35rem; line-height: 1.25; margin: 3rem 0 .8rem; padding-top: .8rem;
  border-top: 2px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .5rem; }
p { max-width: 44rem; margin: .6rem 0; }
a { color: var(--link); }
.question { font-size: 1.08rem; border-left: 3px solid var(--link); padding-left: .8rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; line-height: 1.35;
  font-variant-numeric: tabular-nums; }
.caption { color: var(--soft); font-size: .9rem; margin: 0 0 .3rem; }
th, td { padding: .32rem .55rem; text-align: left; vertical-align: top; }
thead th { font-weight: 600; vertical-align: bottom; }
thead tr:last-child th { border-bottom: 1.5px solid var(--ink); }
thead .group { border-bottom: 1px solid var(--line); text-align: left; }
thead .group.none { border-bottom: 0; }
tbody tr:nth-child(even) { background: var(--stripe); }
tbody tr:last-child td, tbody tr:last-child th { border-bottom: 1.5px solid var(--line); }
td:first-child { min-width: 8rem; }
.claims td:first-child { min-width: 0; white-space: nowrap; }
td.number, th.number { text-align: right; }
td.number { white-space: nowrap; }
td.first, th.first { border-left: 1px solid var(--line); }
td.choice { font-weight: 700; }
.block { margin: 1.2rem 0 1.6rem; }
figure { margin: 1.4rem 0 1.8rem; }
figure svg { display: block; width: 100%; color: var(--ink); }
figure svg .paper { fill: none; }
figcaption { color: var(--soft); font-size: .9rem; max-width: 44rem; margin-top: .4rem; }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .2rem 1.2rem;
  margin: .5rem 0; font-size: .93rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.claim { border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem; margin: .9rem 0;
  background: var(--panel); break-inside: avoid; }
.claim p { margin: .35rem 0; }
.claim .id { font-weight: 700; margin-right: .4rem; white-space: nowrap; }
.claim .reason, .claim .source { color: var(--soft); font-size: .92rem; }
.claim .block { margin: .6rem 0; } .claim td:first-child { min-width: 5rem; }
.claim tbody tr:nth-child(even) { background: none; }
.badge { display: inline-block; border: 1.5px solid currentColor; border-radius: 1rem;
  padding: 0 .6rem; font-size: .8rem; font-weight: 700; white-space: nowrap; line-height: 1.5; }
.claim .badge { float: right; margin-left: .8rem; }
.held { color: var(--held); } .not-held { color: var(--not); } .undecided { color: var(--open); }
.outside-the-regime, .no-verdict { color: var(--out); }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; }
.notes { font-size: .92rem; } .notes li { margin: .3rem 0; max-width: 44rem; }
@media (max-width: 40rem) { body { padding: 1rem .8rem 3rem; } h1 { font-size: 1.45rem; }
  dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; }
  th, td { padding: .3rem .45rem; } }
@media print { html { font-size: 10pt; } :root { color-scheme: light; --ground: #fff; --ink:
  #000; --soft: #444; --line: #bbb;
  --panel: #fff; --link: #000; --held: #0b5a2c; --not: #8f1a14; --open: #6e4700; --out: #444;
  --stripe: #fff; }
  body { max-width: none; padding: 0; } nav { display: none; }
  .scroll { overflow: visible; } table { font-size: 8pt; } th, td { padding: .15rem .4rem; }
  h2, h3 { break-after: avoid; } figure, .block { break-inside: avoid; }
  figure svg { min-width: 0 !important; } }
)css";

}  // namespace graft
