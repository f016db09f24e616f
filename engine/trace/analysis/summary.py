"""Summary of each variant in a few numbers."""

import math

from ..divergence import differs, first_divergence, is_tie
from ..records import Lane, Plain
from ..trace import Trace
from .collapse import Collapse, lane_collapse


class VariantSummary(Plain, frozen=True):
    """Means and percentiles over the steps at which variant and baseline were both decoding.

    None if there was no such step or a value was not finite.
    """

    name: str
    recipe: str | None
    first_divergence: int | None
    """Step of the first token that differs from the baseline's; None if none does."""
    tie: bool
    """Whether that difference is a tie: the baseline's margin is under the noise floor."""
    divergent: float | None
    """Share of the steps, in 0..1, whose token differs from the baseline's (arXiv 2311.01544,
    when the context is forced)."""
    collapse: Collapse
    cos_h: float | None
    cos_z: float | None
    cos_p: float | None
    kl_mean: float | None
    """Mean of KL(p ‖ q), p baseline, in nats, as are the next two."""
    kl_median: float | None
    kl_99: float | None
    compared: int
    """Number of steps at which both were decoding."""
    not_comparable: int
    """Number of those at which the logits of one of the two are not numbers; means and percentiles
    leave them out."""


def summarize(trace: Trace) -> list[VariantSummary]:
    lanes = trace.header.lanes
    return [_summary(trace, lane, index) for index, lane in enumerate(lanes[1:], start=1)]


def _summary(trace: Trace, lane: Lane, index: int) -> VariantSummary:
    steps = trace.steps
    compared = [d for step in steps if (d := step.drift_of(index)) is not None]
    drift = [d for d in compared if not d.not_comparable]
    running = [step for step in steps if step.lanes[0] or step.lanes[index]]
    kl = [d.kl for d in drift]
    first = first_divergence(steps, index)
    return VariantSummary(
        name=lane.name,
        recipe=lane.recipe,
        first_divergence=first,
        tie=first is not None and is_tie(trace.header, steps[first], index),
        divergent=mean([float(differs(step, index)) for step in running]),
        collapse=lane_collapse(steps, index),
        cos_h=mean([d.cos_h for d in drift]),
        cos_z=mean([d.cos_z for d in drift]),
        cos_p=mean([d.cos_p for d in drift]),
        kl_mean=mean(kl),
        kl_median=percentile(kl, 50),
        kl_99=percentile(kl, 99),
        compared=len(compared),
        not_comparable=len(compared) - len(drift),
    )


def mean(values: list[float | None]) -> float | None:
    finite = _all_finite(values)
    try:
        return math.fsum(finite) / len(finite) if finite else None
    except OverflowError:
        return None


def percentile(values: list[float | None], percent: float) -> float | None:
    """Percentile, linear between the two nearest ranks as in numpy's default."""
    finite = sorted(_all_finite(values))
    if not finite:
        return None
    rank = percent / 100 * (len(finite) - 1)
    below = math.floor(rank)
    above = math.ceil(rank)
    return finite[below] + (finite[above] - finite[below]) * (rank - below)


def _all_finite(values: list[float | None]) -> list[float]:
    """Values, or an empty list if one of them is None."""
    finite = [value for value in values if value is not None]
    return finite if len(finite) == len(values) else []
