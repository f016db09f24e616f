"""A trace as one HTML page without scripts, other files or a server."""

import shlex
from collections.abc import Iterable

import msgspec

from ...options import Options
from ..analysis.collapse import BASELINE_TOO, COLLAPSED
from ..analysis.statistics import Distances, statistics, text_measures
from ..analysis.theory import SPACES
from ..divergence import differs, first_divergence, not_numbers_mark
from ..trace import Trace
from .html_blame import blame_sections
from .html_chart import chart
from .html_page import escaped, page, row, table
from .session_facts import LANE_COLUMNS, lane_cells, session_facts
from .statistics_table import (
    DISTANCE_ROWS,
    LEFT_OUT,
    REPETITION_ROWS,
    TEXT_HEAD,
    TEXT_ROWS,
    distance_cell,
    repetition_label,
)

STATISTICS_NOTE = (
    '<p class="note">KLD is KL(p‖q) in nats, p baseline, q variant; Δp is of the probability of '
    "the baseline's token, variant minus baseline. Names are those of llama.cpp. "
    "≈: a divergence by a tie, as the baseline's margin is under the noise floor. "
    "collapse step: where the repetition begins that a text ends in, and stays in: "
    f"{COLLAPSED}; {BASELINE_TOO}. distinct-2: different 2-grams over tokens. zlib ratio: bytes of "
    "the text over those of it compressed. Entropy: mean, of the lane's own p = softmax(z/T).</p>"
)


def to_html(trace: Trace) -> str:
    """HTML with diverging tokens marked, charts, statistics and the command to record it again."""
    header = trace.header
    title = f"{header.model.name}, decoded in lockstep"
    lanes = range(1, len(header.lanes))
    facts = session_facts(trace).items()
    body = [
        f"<h1>{escaped(title)}</h1>",
        table([], [[escaped(name), escaped(fact)] for name, fact in facts], "left"),
        *(f"<p><b>Note:</b> {escaped(note)}</p>" for note in header.notes),
        "<h2>Lanes</h2>",
        table(
            LANE_COLUMNS,
            [[*map(escaped, [lane.name, *lane_cells(lane)])] for lane in header.lanes],
            "left",
        ),
        "<h2>Prompt</h2>",
        f"<pre>{escaped(header.prompt.text)}</pre>",
        "<h2>Texts</h2>",
    ]
    if lanes:
        body.append(
            '<p class="note">Orange tokens are not the baseline\'s; a line stands before the '
            "first.</p>"
        )
    for lane, record in enumerate(header.lanes):
        body += [f"<h3>{escaped(record.name)}</h3>", f"<pre>{_lane(trace, lane)}</pre>"]
    if lanes:
        body += ["<h2>Statistics</h2>", STATISTICS_NOTE, *_statistics(trace), *_drift(trace)]
    body += blame_sections(trace)
    if header.options is not None:
        body += ["<h2>Again</h2>", f"<pre>{escaped(command(header.options))}</pre>"]
    return page(title, body)


def command(options: Options) -> str:
    """Shell command that records with the same options."""
    return shlex.join(["prunetui", "record", *option_words(options)])


def option_words(options: Options) -> list[str]:
    """Words of the command line for the options that are not the default."""
    words: list[str] = []
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
        elif isinstance(value, bool):
            words.append(name if value else f"--no-{key}")
        else:
            words += [name, str(value)]
    return words


def _lane(trace: Trace, lane: int) -> str:
    first = first_divergence(trace.steps, lane) if lane else None
    parts = []
    for nothing, run in trace.runs(lane):
        steps = [*run]
        texts = [escaped(token.text) if (token := step.lanes[lane]) else "" for step in steps]
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
    names = "".join(f"<th>{escaped(lane.name)}</th>" for lane in header.lanes[1:])
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
            yield row(label, [distance_cell(label, each) for each in distances])
    yield _group(TEXT_HEAD, len(variants))
    for label, text in TEXT_ROWS.items():
        yield row(label, [text(variant) for variant in variants])
    baseline = text_measures(trace.steps, 0)
    for label, repetition in REPETITION_ROWS.items():
        cells = [repetition(variant.text) for variant in variants]
        yield row(repetition_label(label, baseline), cells)
    yield "</table></div>"


def _group(name: str, variants: int) -> str:
    return f'<tr class="group"><th colspan="{variants + 1}">{name}</th></tr>'


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
        yield f'<h3>{escaped(trace.header.lanes[lane].name)}</h3><div class="charts">'
        own_drifts = [step.drift_of(lane) for step in steps]
        local_drifts = [step.local_of(lane) for step in steps]
        first = first_divergence(steps, lane)
        for space in SPACES:
            yield f"<figure>{chart(space, own_drifts, local_drifts, first)}</figure>"
        yield "</div>"
