"""A trace as one HTML page without scripts, other files or a server."""

import shlex
from collections.abc import Iterable
from html import escape

import msgspec

from ...options import Options
from ..analysis.statistics import Distances, statistics
from ..analysis.theory import SPACES
from ..divergence import differs, first_divergence, not_numbers_mark
from ..printable import visible
from ..trace import Trace
from .html_chart import chart
from .session_facts import LANE_COLUMNS, lane_cells, session_facts
from .statistics_table import DISTANCE_ROWS, LEFT_OUT, TEXT_ROWS, distance_cell

STATISTICS_NOTE = (
    '<p class="note">KLD is KL(p‖q) in nats, p baseline, q variant; Δp is of the probability of '
    "the baseline's token, variant minus baseline. Names are those of llama.cpp. "
    "≈: a divergence by a tie, as the baseline's margin is under the noise floor.</p>"
)

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
"""


def to_html(trace: Trace) -> str:
    """HTML with diverging tokens marked, charts, statistics and the command to record it again."""
    header = trace.header
    title = f"{header.model.name}, decoded in lockstep"
    lanes = range(1, len(header.lanes))
    facts = session_facts(trace).items()
    body = [
        f"<h1>{_text(title)}</h1>",
        _table([], [[_text(name), _text(fact)] for name, fact in facts], "left"),
        *(f"<p><b>Note:</b> {_text(note)}</p>" for note in header.notes),
        "<h2>Lanes</h2>",
        _table(
            LANE_COLUMNS,
            [[*map(_text, [lane.name, *lane_cells(lane)])] for lane in header.lanes],
            "left",
        ),
        "<h2>Prompt</h2>",
        f"<pre>{_text(header.prompt.text)}</pre>",
        "<h2>Texts</h2>",
    ]
    if lanes:
        body.append(
            '<p class="note">Orange tokens are not the baseline\'s; a line stands before the '
            "first.</p>"
        )
    for lane, record in enumerate(header.lanes):
        body += [f"<h3>{_text(record.name)}</h3>", f"<pre>{_lane(trace, lane)}</pre>"]
    if lanes:
        body += ["<h2>Statistics</h2>", STATISTICS_NOTE, *_statistics(trace), *_drift(trace)]
    if header.options is not None:
        body += ["<h2>Again</h2>", f"<pre>{_text(command(header.options))}</pre>"]
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def command(options: Options) -> str:
    """Shell command that records with the same options."""
    words = ["prunetui", "record"]
    defaults = msgspec.structs.asdict(Options())
    for key, value in msgspec.structs.asdict(options).items():
        if value == defaults[key]:
            continue
        name = "--" + key.replace("_", "-")
        if key == "variants":
            # The baseline alone cannot be requested; beside a control it can.
            for recipe in value or ["control"]:
                words += ["--variant", recipe]
        elif key in ("answers", "keep"):
            words += [name, ",".join(value)]
        elif value is True:
            words.append(name)
        else:
            words += [name, str(value)]
    return shlex.join(words)


def _text(text: str) -> str:
    return escape(visible(text, keep="\n\t"))


def _lane(trace: Trace, lane: int) -> str:
    first = first_divergence(trace.steps, lane) if lane else None
    parts = []
    for nothing, run in trace.runs(lane):
        steps = [*run]
        texts = [_text(token.text) if (token := step.lanes[lane]) else "" for step in steps]
        if nothing:
            # One mark for the run, at its first step.
            texts = [not_numbers_mark(len(steps))]
        for step, text in zip(steps, texts, strict=False):
            if lane and differs(step, lane) and step.lanes[lane]:
                mark = " first" if step.step == first else ""
                text = f'<span class="other{mark}">{text}</span>'
            parts.append(text)
    return "".join(parts)


def _statistics(trace: Trace) -> Iterable[str]:
    header = trace.header
    variants = [statistics(trace, lane) for lane in range(1, len(header.lanes))]
    names = "".join(f"<th>{_text(lane.name)}</th>" for lane in header.lanes[1:])
    yield f'<div class="scroll"><table><tr><th></th>{names}</tr>'
    own = "the baseline's tokens" if header.context == "forced" else "own tokens"
    groups: list[tuple[str, list[Distances | None]]] = [
        (own, [variant.propagated for variant in variants])
    ]
    if header.context == "both":
        groups.insert(0, ("local: the baseline's tokens", [variant.local for variant in variants]))
    for name, distances in groups:
        yield _group(name, len(variants))
        left_out = any(each and each.not_comparable for each in distances)
        for label in [LEFT_OUT] * left_out + [*DISTANCE_ROWS]:
            yield _row(label, [distance_cell(label, each) for each in distances])
    yield _group("text", len(variants))
    for label, text in TEXT_ROWS.items():
        yield _row(label, [text(variant) for variant in variants])
    yield "</table></div>"


def _group(name: str, variants: int) -> str:
    return f'<tr class="group"><th colspan="{variants + 1}">{name}</th></tr>'


def _row(label: str, cells: Iterable[str]) -> str:
    return f"<tr><td>{label}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]], style: str) -> str:
    """Table of cells that are escaped."""
    head = "".join(f"<th>{head}</th>" for head in heads)
    lines = "".join(_row(label, cells) for label, *cells in rows)
    return (
        f'<div class="scroll"><table class="{style}">'
        f"{f'<tr>{head}</tr>' if head else ''}{lines}</table></div>"
    )


def _drift(trace: Trace) -> Iterable[str]:
    steps = trace.steps
    own = "the baseline's" if trace.header.context == "forced" else "the variant's own"
    local = " Points: local, on the baseline's." * (trace.header.context == "both")
    yield (
        f'<h2>Drift from the baseline</h2><p class="note">Lines: on {own} tokens.{local} Dashed: '
        "the first token that is not the baseline's. h: embedding, the head's input; z: logits; "
        "p = softmax(z/T). At 1 − cos = 1 the vectors are orthogonal.</p>"
    )
    for lane in range(1, len(trace.header.lanes)):
        yield f'<h3>{_text(trace.header.lanes[lane].name)}</h3><div class="charts">'
        own_drifts = [step.drift_of(lane) for step in steps]
        local_drifts = [step.local_of(lane) for step in steps]
        first = first_divergence(steps, lane)
        for space in SPACES:
            yield f"<figure>{chart(space, own_drifts, local_drifts, first)}</figure>"
        yield "</div>"
