"""A trace as CSV, Parquet, JSON, Markdown or HTML."""

import csv
import io
import json
import re
from collections.abc import Callable

import msgspec

from ..analysis.summary import VariantSummary, summarize
from ..printable import visible
from ..trace import NOT_NUMBERS, Trace
from .html import to_html
from .parquet import to_parquet
from .table import COLUMNS, Cell, rows


def to_csv(trace: Trace) -> str:
    """The columns of `table`, empty where a number is missing or not finite.

    Texts, names and lists are JSON: quoted, so that a spreadsheet takes none for a formula, and
    with control characters escaped.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows(trace):
        writer.writerow([_cell(value) for value in row])
    return out.getvalue()


def _cell(value: Cell) -> object:
    if isinstance(value, str | list):
        return json.dumps(value)
    if isinstance(value, bool):
        return int(value)
    return value


def to_json(trace: Trace) -> str:
    """One object: the header, and the steps that stand."""
    encoded = msgspec.json.encode({"header": trace.header, "steps": trace.steps})
    return msgspec.json.format(encoded, indent=1).decode()


def to_markdown(trace: Trace) -> str:
    """The question, a table of the variants, and every lane's text."""
    header = trace.header
    sampling = header.sampling
    decoding = (
        "greedy"
        if sampling.temperature == 0
        else f"temperature {sampling.temperature:g}, top-k {sampling.top_k or 'off'}, "
        f"top-p {sampling.top_p:g}, seed {sampling.seed}"
    )
    blocks = [
        f"# {_inline(header.model.name)}, decoded in lockstep",
        f"{len(trace.steps)} steps, {header.context} context, {decoding}, "
        f"{header.model.dtype} on {_inline(header.model.device)}, {header.created}, "
        f"prunetui {header.versions.get('prunetui', '?')}.",
        *(f"Note: {_inline(note)}" for note in header.notes),
        "## Prompt",
        _fenced(header.prompt.text),
    ]
    if variants := summarize(trace):
        columns = [*SUMMARY_COLUMNS]
        lines = [
            columns,
            ["---", *["---:"] * (len(columns) - 1)],
            *([_inline(v.name), *summary_cells(v)] for v in variants),
        ]
        blocks += [
            "## Drift from the baseline",
            "\n".join(f"| {' | '.join(row)} |" for row in lines),
            *(f"{_inline(v.name)}: {said}." for v in variants if (said := left_out(v))),
            SUMMARY_NOTE,
        ]
    for number, lane in enumerate(header.lanes):
        blocks += [f"## {_inline(lane.name)}", _fenced(trace.marked_text(number))]
    return "\n\n".join(blocks) + "\n"


SUMMARY_COLUMNS = (
    "variant",
    "first ≠",
    "share ≠",
    "cos h",
    "cos z",
    "cos p",
    "KL mean",
    "KL 50%",
    "KL 99%",
)

SUMMARY_NOTE = (
    "first ≠: first step whose token differs from the baseline's (≈: by a tie, a margin under the "
    "noise floor); share ≠: share of such steps. "
    "cos: mean cosine similarity to the baseline of the embedding h, the logits z, the "
    "probabilities p. KL(p ‖ q), p baseline, q variant, in nats: mean, median, 99th percentile."
)


def left_out(variant: VariantSummary) -> str:
    """How many steps the means and percentiles leave out, and why; empty if none."""
    if not variant.not_comparable:
        return ""
    compared = variant.compared
    return f"{NOT_NUMBERS} at {variant.not_comparable} of {compared} steps, which " + (
        "are left out of its means" if variant.not_comparable < compared else "have no measures"
    )


def summary_cells(variant: VariantSummary) -> list[str]:
    """In the order of `SUMMARY_COLUMNS`, without the name."""
    none = NOT_NUMBERS if 0 < variant.not_comparable == variant.compared else "–"
    cosines = (variant.cos_h, variant.cos_z, variant.cos_p)
    kl = (variant.kl_mean, variant.kl_median, variant.kl_99)
    return [
        _figure(variant.first_divergence, "≈ {}" if variant.tie else "{}"),
        _figure(variant.divergent, "{:.1%}"),
        *(_figure(value, "{:.4f}", none) for value in cosines),
        *(_figure(value, "{:.3g}", none) for value in kl),
    ]


def _figure(value: float | None, form: str, none: str = "–") -> str:
    return none if value is None else form.format(value)


def _inline(text: str) -> str:
    """As inline code, which no character of the text can end."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return f"{fence}{pad}{visible(text).replace('|', '¦')}{pad}{fence}"


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{visible(text, keep=chr(10))}\n{fence}"


FORMATS: dict[str, Callable[[Trace], str | bytes]] = {
    "csv": to_csv,
    "parquet": to_parquet,
    "json": to_json,
    "md": to_markdown,
    "html": to_html,
}
