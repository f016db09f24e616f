"""A trace as one HTML page without scripts, other files or a server."""

import math
import shlex
from collections.abc import Iterable, Sequence
from html import escape

import msgspec

from ...options import Options
from ..analysis.statistics import Distances, statistics
from ..divergence import NOT_NUMBERS, differs, first_divergence, not_numbers_mark
from ..printable import visible
from ..records import Drift, Step
from ..trace import Trace

WIDTH, HEIGHT, LEFT, BOTTOM = 640, 150, 48, 18
"""Size of a chart in pixels, and its margins for the axes' labels to the left and below."""
LEAST_KL = 1e-6
"""Lower end of the logarithmic KL axis, in nats; lower values are drawn there."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72em; margin: 2em auto; padding: 0 1em;
       color: #222; background: #fff; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f5f5f2; padding: .8em; }
table { border-collapse: collapse; } th, td { padding: .15em .8em; text-align: right; }
th:first-child, td:first-child { text-align: left; } tr { border-bottom: 1px solid #ddd; }
.other { color: #a34700; } .first { border-left: 2px solid #a34700; padding-left: 2px; }
figure { display: inline-block; margin: 0 1em 1em 0; } figcaption { color: #555; }
svg { background: #fafaf8; } text { font-size: 11px; fill: #555; }
"""
COLORS = {"cos_h": "#137a63", "cos_z": "#3b4fb8", "cos_p": "#8a3aa8", "kl": "#b3213f"}
TITLES = {
    "cos_h": "cosine similarity of h",
    "cos_z": "cosine similarity of z",
    "cos_p": "cosine similarity of p",
    "kl": "KL(p‖q), nats, p baseline, logarithmic",
}

_ROWS = (
    ("steps left out: not numbers", "not_comparable"),
    ("mean KLD, nats", "kld_mean"),
    ("median KLD", "kld_median"),
    ("99% KLD", "kld_99"),
    ("99.9% KLD", "kld_999"),
    ("max KLD", "kld_max"),
    ("same top p", "same_top"),
    ("mean Δp", "dp_mean"),
    ("RMS Δp", "dp_rms"),
    ("1% Δp", "dp_1"),
    ("5% Δp", "dp_5"),
    ("95% Δp", "dp_95"),
    ("99% Δp", "dp_99"),
    ("PPL(q)/PPL(p)", "ppl_ratio"),
)


def to_html(trace: Trace) -> str:
    """HTML with diverging tokens marked, charts, statistics and the command to record it again."""
    header = trace.header
    title = f"{header.model.name}, decoded in lockstep"
    lanes = range(1, len(header.lanes))
    body = [
        f"<h1>{_text(title)}</h1>",
        f"<p>{len(trace.steps)} steps, context {header.context}, {_text(header.model.dtype)} on "
        f"{_text(header.model.device)}, {_text(header.created)}, prunetui "
        f"{_text(header.versions.get('prunetui', '?'))}. Orange tokens are not the baseline's; a "
        "line stands before the first.</p>",
        *(f"<p><b>Note:</b> {_text(note)}</p>" for note in header.notes),
        "<h2>Prompt</h2>",
        f"<pre>{_text(header.prompt.text)}</pre>",
    ]
    for lane, record in enumerate(header.lanes):
        body += [f"<h2>{_text(record.name)}</h2>", f"<pre>{_lane(trace, lane)}</pre>"]
    if lanes:
        body.append("<h2>Statistics</h2>")
        body.append(
            "<p>KLD is KL(p‖q), p baseline, q variant; Δp is of the baseline's token, variant "
            "minus baseline. Names are those of llama.cpp.</p>"
        )
        body += _statistics(trace)
        body.append("<h2>Drift</h2><p>Lines: on the variant's own tokens.")
        body.append("Points: on the baseline's.</p>" if header.context == "both" else "</p>")
    for lane in lanes:
        body.append(f"<h3>{_text(header.lanes[lane].name)}</h3>")
        body += [_figure(trace.steps, lane, key) for key in COLORS]
    if header.options is not None:
        body += ["<h2>Again</h2>", f"<pre>{_text(command(header.options))}</pre>"]
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
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
    variants = [statistics(trace, lane) for lane in range(1, len(trace.header.lanes))]
    names = "".join(f"<th>{_text(lane.name)}</th>" for lane in trace.header.lanes[1:])
    yield f"<table><tr><th></th>{names}</tr>"
    groups: list[tuple[str, list[Distances | None]]] = [
        ("on the variant's own tokens", [variant.propagated for variant in variants])
    ]
    if trace.header.context == "both":
        groups.insert(
            0, ("local: on the baseline's tokens", [variant.local for variant in variants])
        )
    for name, distances in groups:
        yield f'<tr><th colspan="{len(variants) + 1}">{name}</th></tr>'
        for label, key in _ROWS:
            yield _row(label, [_distance(each, key) for each in distances])
    yield f'<tr><th colspan="{len(variants) + 1}">text</th></tr>'
    yield _row("first divergent step", [variant.first_divergence for variant in variants])
    yield _row("share of divergent tokens", [variant.divergent for variant in variants])
    yield _row("repeats from step", [variant.collapse for variant in variants])
    yield "</table>"


def _distance(distances: Distances | None, key: str) -> float | str | None:
    value = getattr(distances, key) if distances else None
    if distances and value is None and distances.not_comparable and not distances.steps:
        return NOT_NUMBERS
    return value


def _row(label: str, values: Sequence[float | str | None]) -> str:
    cells = "".join(
        f"<td>{value if isinstance(value, str) else '–' if value is None else f'{value:.5g}'}</td>"
        for value in values
    )
    return f"<tr><td>{label}</td>{cells}</tr>"


def _figure(steps: list[Step], lane: int, key: str) -> str:
    own = [step.drift_of(lane) for step in steps]
    local = [step.local_of(lane) for step in steps]
    values = [value for drift in (*own, *local) if (value := _value(drift, key)) is not None]
    low, high = (min([*values, 0.0]), 1.0) if key != "kl" else _kl_range(values)
    labels = [(high, f"{high:.4g}"), (low, f"{low:.4g}")]
    if key == "kl":
        labels = [(power, f"1e{power:.0f}") for power in (high, low)]

    def point(step: int, value: float) -> str:
        x = LEFT + (WIDTH - LEFT - 4) * step / max(1, len(steps) - 1)
        y = 4 + (HEIGHT - BOTTOM - 8) * (high - value) / (high - low)
        return f"{x:.1f},{y:.1f}"

    path, pen = [], "M"
    for step, drift in enumerate(own):
        value = _value(drift, key)
        if value is not None:
            path.append(pen + point(step, value))
        pen = "M" if value is None else "L"
    points = [
        point(step, value).split(",")
        for step, drift in enumerate(local)
        if (value := _value(drift, key)) is not None
    ]
    dots = "".join(f'<circle cx="{x}" cy="{y}" r="1.6" fill="#222"/>' for x, y in points)
    marks = "".join(
        f'<text x="2" y="{float(point(0, value).split(",")[1]) + 4:.1f}">{label}</text>'
        for value, label in labels
    )
    last = max(0, len(steps) - 1)
    return (
        f'<figure><svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{TITLES[key]}">'
        f'<path d="{"".join(path)}" fill="none" stroke="{COLORS[key]}"/>{dots}{marks}'
        f'<text x="{LEFT}" y="{HEIGHT - 4}">step 0</text>'
        f'<text x="{WIDTH - 4}" y="{HEIGHT - 4}" text-anchor="end">{last}</text></svg>'
        f"<figcaption>{TITLES[key]}</figcaption></figure>"
    )


def _value(drift: Drift | None, key: str) -> float | None:
    value = getattr(drift, key) if drift else None
    if value is None or key != "kl":
        return value
    return math.log10(max(value, LEAST_KL))


def _kl_range(logarithms: list[float]) -> tuple[float, float]:
    """Exponents of the powers of ten around the values."""
    low = math.floor(min(logarithms, default=0.0))
    return float(low), float(max(math.ceil(max(logarithms, default=1.0)), low + 1))
