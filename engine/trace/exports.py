"""A trace as CSV, JSON, Markdown or HTML."""

import csv
import io
import json
import re
from collections.abc import Callable

import msgspec

from .records import Drift, Token
from .report import to_html
from .summary import VariantSummary, summarize
from .text import visible
from .trace import Trace


def to_csv(trace: Trace) -> str:
    """One row per step and lane, a column per number; drift columns are empty for the baseline,
    and `local_` ones, on the baseline's tokens, in any context but both.

    Texts and names are JSON strings: quoted, so that a spreadsheet takes none for a formula, and
    with control characters escaped.
    """
    token_keys = Token.__struct_fields__
    drift_keys = Drift.__struct_fields__
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    local_keys = [f"local_{key}" for key in drift_keys]
    keys = [*token_keys, *drift_keys, *local_keys]
    writer.writerow(["step", "lane", "name", *keys, "seconds", "read", "memory"])
    for step in trace.steps:
        for lane, token in enumerate(step.lanes):
            if token is None:
                continue
            drift = step.drift[lane - 1] if lane else None
            local = step.local[lane - 1] if lane and step.local else None
            writer.writerow(
                [
                    step.step,
                    lane,
                    _cell(trace.header.lanes[lane].name),
                    *(_cell(getattr(token, key)) for key in token_keys),
                    *(_cell(getattr(drift, key, None)) for key in drift_keys),
                    *(_cell(getattr(local, key, None)) for key in drift_keys),
                    step.seconds,
                    step.read,
                    step.memory,
                ]
            )
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, str):
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
        "## Prompt",
        _fenced(header.prompt.text),
    ]
    if variants := summarize(trace):
        columns = [*SUMMARY_COLUMNS]
        rows = [
            columns,
            ["---", *["---:"] * (len(columns) - 1)],
            *([_inline(v.name), *summary_cells(v)] for v in variants),
        ]
        blocks += [
            "## Drift from the baseline",
            "\n".join(f"| {' | '.join(row)} |" for row in rows),
            SUMMARY_NOTE,
        ]
    for number, lane in enumerate(header.lanes):
        blocks += [f"## {_inline(lane.name)}", _fenced(trace.text(number))]
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


def summary_cells(variant: VariantSummary) -> list[str]:
    """In the order of `SUMMARY_COLUMNS`, without the name."""
    return [
        _figure(variant.first_divergence, "≈ {}" if variant.tie else "{}"),
        _figure(variant.divergent, "{:.1%}"),
        *(_figure(value, "{:.4f}") for value in (variant.cos_h, variant.cos_z, variant.cos_p)),
        *(
            _figure(value, "{:.3g}")
            for value in (variant.kl_mean, variant.kl_median, variant.kl_99)
        ),
    ]


def _figure(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


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


FORMATS: dict[str, Callable[[Trace], str]] = {
    "csv": to_csv,
    "json": to_json,
    "md": to_markdown,
    "html": to_html,
}
