"""Fit of the second-order estimates: Theorems 1 to 3 of arXiv 2603.24652."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ..records import Drift, Step
from .summary import percentile

SPACES = ("h", "z", "p", "kl")
FAILS = 0.5
"""Relative error above which the expansion does not hold: the perturbation is not small."""


@dataclass(frozen=True)
class Fit:
    """Estimates of 1 − cos in a space, or of KL(p ‖ q) in nats, and the measured values."""

    steps: list[int]
    measured: list[float]
    estimated: list[float]

    @cached_property
    def errors(self) -> list[float]:
        """|estimate − measured| / measured; a measured 0 has no relative error and is left out."""
        return [
            abs(estimate - measured) / measured
            for estimate, measured in zip(self.estimated, self.measured, strict=True)
            if measured > 0
        ]

    @property
    def median_error(self) -> float | None:
        return percentile([*self.errors], 50)

    @property
    def failing(self) -> int:
        """Number of steps whose relative error is above `FAILS`."""
        return sum(error > FAILS for error in self.errors)


def measured_and_estimated(drift: Drift, space: str) -> tuple[float | None, float | None]:
    """1 − cos in h, z or p and its estimate, or KL(p ‖ q) and its estimate, in nats."""
    return drift.distance(space), getattr(drift, f"est_{space}")


def fit(steps: Sequence[Step], lane: int, space: str) -> Fit:
    """Estimates and measures of a variant by step; in context both on the baseline's tokens."""
    result = Fit([], [], [])
    for step in steps:
        drift = one_step_drift(step, lane)
        if drift is None or drift.not_comparable:
            continue
        measured, estimated = measured_and_estimated(drift, space)
        if measured is not None and estimated is not None:
            result.steps.append(step.step)
            result.measured.append(measured)
            result.estimated.append(estimated)
    return result


def one_step_drift(step: Step, lane: int) -> Drift | None:
    """Local drift in context both, else the drift: the theorems are about a single step."""
    return step.local_of(lane) if step.local else step.drift_of(lane)
