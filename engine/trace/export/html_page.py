"""HTML page without scripts, other files or a server, and its parts."""

from collections.abc import Iterable
from html import escape

from ..printable import visible

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --quiet: #5c636b; --rule: #d8dce0;
        --ground: #fff; --panel: #f6f7f8; --other: #a34700;
        --h: #137a63; --z: #3b4fb8; --p: #8a3aa8; --kl: #b3213f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #d7dbe0; --quiet: #929aa4; --rule: #343a42; --ground: #14171b; --panel: #1b1f24;
          --other: #ff9e5e; --h: #5cc9ae; --z: #8ea2ff; --p: #d48df0; --kl: #ff7d8f; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 80em; margin: 2em auto; padding: 0 1.2em;
       color: var(--ink); background: var(--ground); }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin: 2em 0 .5em; } h3 { font-size: 1em; }
p { max-width: 50em; } .note, caption, th { color: var(--quiet); font-weight: normal; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--panel); padding: .8em 1em;
      border-radius: 4px; font: 13.5px/1.5 ui-monospace, monospace; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2em .9em; text-align: right; border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.left th, .left td { text-align: left; vertical-align: top; }
.group th { padding-top: 1.1em; color: var(--ink); }
.other { color: var(--other); }
.first { border-left: 2px solid var(--other); padding-left: 2px; }
.charts { display: flex; flex-wrap: wrap; gap: 1em 1.5em; }
figure { margin: 0; } svg { max-width: 100%; height: auto; }
svg text { font: 11px system-ui, sans-serif; fill: var(--quiet); }
svg .title { font-size: 12px; fill: var(--ink); }
svg path { fill: none; stroke: var(--rule); } svg circle { fill: var(--ink); }
svg .axis, svg .one { stroke: var(--quiet); } svg .one { stroke-dasharray: 1 3; }
svg .diverges { stroke: var(--other); stroke-dasharray: 4 3; }
svg .line { stroke-width: 1.4; stroke-linejoin: round; stroke-linecap: round; }
svg .h { stroke: var(--h); } svg .z { stroke: var(--z); }
svg .p { stroke: var(--p); } svg .kl { stroke: var(--kl); }
svg rect { fill: var(--z); } svg rect.back { fill: var(--h); }
.h { color: var(--h); } .z { color: var(--z); } .p { color: var(--p); } .kl { color: var(--kl); }
svg circle[class] { fill: currentColor; } details { margin: .6em 0; }
"""


def page(title: str, body: Iterable[str]) -> str:
    """Whole page of a title, which is text, and a body of HTML."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escaped(title)}</title>\n<style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def escaped(text: str) -> str:
    """Text as HTML, with its control characters visible."""
    return escape(visible(text, keep="\n\t"))


def table(heads: Iterable[str], rows: Iterable[Iterable[str]], style: str) -> str:
    """Table of cells that are escaped."""
    head = "".join(f"<th>{head}</th>" for head in heads)
    lines = "".join(row(label, cells) for label, *cells in rows)
    return (
        f'<div class="scroll"><table class="{style}">'
        f"{f'<tr>{head}</tr>' if head else ''}{lines}</table></div>"
    )


def row(label: str, cells: Iterable[str]) -> str:
    """Row of a table, of cells that are escaped."""
    return f"<tr><td>{label}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
