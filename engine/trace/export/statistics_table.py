"""Rows of the table of statistics, for view 6 and the HTML report."""

from collections.abc import Callable

from ..analysis.collapse import WINDOW
from ..analysis.statistics import Distances, Statistics, TextMeasures
from ..divergence import NOT_NUMBERS
from ..figures import MISSING, collapse_step, deviation, difference, kl, ratio, share, step_number

DISTANCE_ROWS: dict[str, Callable[[Distances], str]] = {
    "mean KLD": lambda d: kl(d.kld_mean),
    "median KLD": lambda d: kl(d.kld_median),
    "99% KLD": lambda d: kl(d.kld_99),
    "99.9% KLD": lambda d: kl(d.kld_999),
    "max KLD": lambda d: kl(d.kld_max),
    "same top p": lambda d: share(d.same_top),
    "mean Δp": lambda d: difference(d.dp_mean),
    "RMS Δp": lambda d: deviation(d.dp_rms),
    "1% Δp": lambda d: difference(d.dp_1),
    "5% Δp": lambda d: difference(d.dp_5),
    "95% Δp": lambda d: difference(d.dp_95),
    "99% Δp": lambda d: difference(d.dp_99),
    "PPL(q)/PPL(p)": lambda d: ratio(d.ppl_ratio),
}
"""Figures of the distances by their label."""

LEFT_OUT = f"left out: {NOT_NUMBERS}"
"""Label of the number of steps that the figures leave out."""

TEXT_ROWS: dict[str, Callable[[Statistics], str]] = {
    "first divergent step": lambda s: step_number(s.first_divergence, tie=s.tie),
    "divergent tokens": lambda s: share(s.divergent),
}
"""Figures of a variant's text by their label, beside the baseline's."""

REPETITION_ROWS: dict[str, Callable[[TextMeasures], str]] = {
    "collapse step": lambda t: collapse_step(t.collapse.start, as_baseline=t.collapse.as_baseline),
    "seq-rep-4": lambda t: share(t.seq_rep),
    "distinct-2": lambda t: share(t.distinct),
    "zlib ratio": lambda t: ratio(t.compression),
    "entropy, nats": lambda t: kl(t.entropy),
}
"""Figures of how much a text repeats itself, by their label."""

TEXT_HEAD = f"text; repetition in its last {WINDOW} tokens (in brackets: the baseline's)"
"""Head above both."""


def repetition_label(label: str, baseline: TextMeasures) -> str:
    """Label of a row with the baseline's figure."""
    return f"{label} ({REPETITION_ROWS[label](baseline)})"


def distance_cell(label: str, distances: Distances | None) -> str:
    """Cell of a row; says so where there is no figure as no step has numbers."""
    if distances is None:
        return MISSING
    if label == LEFT_OUT:
        return str(distances.not_comparable)
    text = DISTANCE_ROWS[label](distances)
    none = distances.not_comparable and not distances.steps
    return NOT_NUMBERS if none and text == MISSING else text
