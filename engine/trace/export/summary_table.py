"""Cells of the table of the variants' summaries, for Markdown and the terminal."""

from ..analysis.summary import VariantSummary
from ..divergence import NOT_NUMBERS
from ..figures import MISSING, cosine, kl, share, step_number

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
    return [first, share(variant.divergent), *means]
