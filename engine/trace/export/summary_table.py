"""Cells of the table of the variants' summaries, for Markdown and the terminal."""

from ..analysis.collapse import BASELINE_TOO, COLLAPSED, find_collapse
from ..analysis.summary import VariantSummary
from ..divergence import NOT_NUMBERS
from ..figures import MISSING, collapse_step, cosine, kl, share, step_number
from ..trace import Trace

SUMMARY_COLUMNS = (
    "variant",
    "first ≠",
    "share ≠",
    "collapse",
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
    f"collapse: step at which the repetition begins that the text ends in: {COLLAPSED}; "
    f"{BASELINE_TOO}. "
    "cos: mean cosine similarity to the baseline of the embedding h, the logits z, the "
    "probabilities p. KL(p ‖ q), p baseline, q variant, in nats: mean, median, 99th percentile."
)


def baseline_collapse(trace: Trace) -> str:
    """Sentence on a baseline whose own text ends in repetition; empty if it does not."""
    start = find_collapse(trace.steps, 0)
    if start is None:
        return ""
    return f"The baseline's own text ends in repetition, which begins at step {start}."


def left_out(variant: VariantSummary) -> str:
    """Clause on the steps that means and percentiles leave out; empty if there are none."""
    if not variant.not_comparable:
        return ""
    compared = variant.compared
    return f"{NOT_NUMBERS} at {variant.not_comparable} of {compared} steps, which " + (
        "are left out of its means" if variant.not_comparable < compared else "have no measures"
    )


def summary_cells(variant: VariantSummary) -> list[str]:
    """Cells in the order of `SUMMARY_COLUMNS`, without the name."""
    means = [
        *map(cosine, (variant.cos_h, variant.cos_z, variant.cos_p)),
        *map(kl, (variant.kl_mean, variant.kl_median, variant.kl_99)),
    ]
    if 0 < variant.not_comparable == variant.compared:
        means = [NOT_NUMBERS if mean == MISSING else mean for mean in means]
    first = step_number(variant.first_divergence, tie=variant.tie)
    collapse = variant.collapse
    repeats_from = collapse_step(collapse.start, as_baseline=collapse.as_baseline)
    return [first, share(variant.divergent), repeats_from, *means]
