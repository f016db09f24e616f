"""Figures of whole lanes over a history, and the numbers that make lanes a series."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..divergence import first_divergence, is_tie
from ..records import Header, Step
from .collapse import find_collapse
from .summary import mean

NUMBER = re.compile(r"(?<==)(\d+|\[[\d,\s]*\])")
"""Number or list in a recipe of one part, which drops as many."""


@dataclass(frozen=True)
class LaneFigures:
    """What a variant's whole text says of it."""

    kl: float | None
    """Mean KL(p ‖ q), p the baseline's, in nats: local, on the baseline's tokens; in context free,
    which has no local measures, on the lane's own. None where no step has numbers or a value was
    not finite."""
    steps: int
    """Number of steps that it is the mean of."""
    not_comparable: int
    """Further steps, at which the logits of one of the two are not numbers."""
    first_divergence: int | None
    """First step whose token differs from the baseline's."""
    tie: bool
    """Whether that difference is a tie: the baseline's margin is under the noise floor."""
    collapse: int | None
    """Step from which the lane's own text is repetition to its end; None if it is not, and in
    context forced, where a lane has no text of its own."""


def lane_figures(header: Header, steps: Sequence[Step], lane: int) -> LaneFigures:
    """Figures of a variant over the steps; `lane` is 1 or more."""
    steps = list(steps)
    drift_of = Step.local_of if header.context == "both" else Step.drift_of
    compared = [drift for step in steps if (drift := drift_of(step, lane)) is not None]
    measured = [drift for drift in compared if not drift.not_comparable]
    first = first_divergence(steps, lane)
    return LaneFigures(
        kl=mean([drift.kl for drift in measured]),
        steps=len(measured),
        not_comparable=len(compared) - len(measured),
        first_divergence=first,
        tie=first is not None and is_tie(header, steps[first], lane),
        collapse=None if header.context == "forced" else find_collapse(steps, lane),
    )


def dropped_counts(header: Header) -> list[int] | None:
    """Numbers of sublayers that the variants drop, if they are a series: recipes that differ in
    the number alone, and controls, which drop none; None for any other lanes."""
    variants = header.lanes[1:]
    counts = [len(lane.dropped_attention) + len(lane.dropped_mlp) for lane in variants]
    families = {
        NUMBER.sub("", lane.recipe or "", count=1)
        for lane, count in zip(variants, counts, strict=True)
        if count
    }
    drops = all(family.startswith("drop:") and "+" not in family for family in families)
    pruned = [count for count in counts if count]
    weights = any(lane.sparsity is not None for lane in variants)
    series = len(families) == 1 and drops and not weights
    return counts if series and len(set(pruned)) == len(pruned) else None
