"""What dropping so many sublayers costs over some prompts, and how many a stated level allows."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..divergence import NOT_NUMBERS
from ..figures import nats, share, step_number
from .lane_figures import LaneFigures


@dataclass(frozen=True)
class Measured:
    """Figures of the lane that drops a number, after one prompt."""

    number: int
    """Number in the recipe: of sublayers, or of layers for `block`; 0 is a control."""
    prompt: int
    """Index of the prompt."""
    figures: LaneFigures


@dataclass(frozen=True)
class NumberFigures:
    """Figures of a number dropped over all prompts it was measured after."""

    number: int
    prompts: int
    kl: float | None
    """Mean local KL(p ‖ q) in nats over all tokens of the baseline's texts."""
    tokens: int
    """Number of tokens that it is the mean of."""
    not_comparable: int
    """Further tokens, at which the logits of one of the two are not numbers."""
    divergence: int | None
    """Median of the first divergent steps, the lower of the two in the middle; a text that never
    diverges counts as later than all others. None if the one in the middle never does."""
    tie: bool
    """Whether the difference at that step is a tie."""
    never: int
    """Number of texts that are the baseline's to the end."""
    collapsed: int
    """Number of texts that collapse into repetition."""
    collapse: int | None
    """Median of the steps from which those do, the lower of the two in the middle."""

    @property
    def collapsed_share(self) -> float:
        return self.collapsed / self.prompts


@dataclass(frozen=True)
class Levels:
    """Levels that a number dropped keeps or does not."""

    kl: float = 0.1
    """Mean local KL(p ‖ q), in nats, that is not reached."""
    step: int = 16
    """Least median of the first divergent steps."""
    collapsed: float = 0.05
    """Greatest share of texts that collapse, in 0..1."""


@dataclass(frozen=True)
class Verdict:
    """Largest number that keeps a level, and all smaller ones too."""

    level: str
    """What is kept, as a clause."""
    keeps: NumberFigures | None
    """The last number that keeps it; None if not even the first measured does."""
    fails: NumberFigures | None
    """The next number, which does not; None if all measured keep it."""
    again: int | None
    """A larger number, the largest, that keeps it all the same."""
    figure: Callable[[NumberFigures], str]
    """Text of the figure that decides."""

    def __str__(self) -> str:
        if self.keeps is None:
            assert self.fails is not None
            control = "not even the control, which drops nothing, keeps it"
            return f"{self.level}: {control} ({self.figure(self.fails)})"
        largest = f"up to {self.keeps.number}" if self.keeps.number else "none"
        text = f"{self.level}: {largest} dropped ({self.figure(self.keeps)})"
        if self.fails is None:
            return f"{text}, the most tried"
        text += f"; with {self.fails.number}, {self.figure(self.fails)}"
        return text if self.again is None else f"{text}; {self.again} keeps it again"


def summarize_budget(measured: Iterable[Measured]) -> list[NumberFigures]:
    """Figures of every number that was measured, in the order of the numbers."""
    by_number: dict[int, list[LaneFigures]] = {}
    for one in measured:
        by_number.setdefault(one.number, []).append(one.figures)
    return [_over_prompts(number, by_number[number]) for number in sorted(by_number)]


def _over_prompts(number: int, figures: Sequence[LaneFigures]) -> NumberFigures:
    tokens = sum(one.steps for one in figures)
    divergences = [
        (math.inf if one.first_divergence is None else one.first_divergence, one.tie)
        for one in figures
    ]
    step, tie = statistics.median_low(divergences)
    collapses = [one.collapse for one in figures if one.collapse is not None]
    return NumberFigures(
        number=number,
        prompts=len(figures),
        kl=_mean_kl(figures, tokens),
        tokens=tokens,
        not_comparable=sum(one.not_comparable for one in figures),
        divergence=None if step == math.inf else int(step),
        tie=tie,
        never=sum(one.first_divergence is None for one in figures),
        collapsed=len(collapses),
        collapse=statistics.median_low(collapses) if collapses else None,
    )


def _mean_kl(figures: Sequence[LaneFigures], tokens: int) -> float | None:
    """Mean over the tokens of all texts; None if there are none or a text's is not finite."""
    sums = [None if one.kl is None else one.kl * one.steps for one in figures if one.steps]
    finite = [value for value in sums if value is not None]
    return math.fsum(finite) / tokens if finite and len(finite) == len(sums) else None


def judge(numbers: Sequence[NumberFigures], levels: Levels) -> list[Verdict]:
    """A verdict for each level on numbers in their order; none without numbers."""
    if not numbers:
        return []
    return [
        _verdict(
            numbers,
            f"mean local KL(p‖q) under {levels.kl:g} nats",
            lambda one: one.kl is not None and one.kl < levels.kl and not one.not_comparable,
            kl_figure,
        ),
        _verdict(
            numbers,
            f"median first divergent step {levels.step} or later",
            lambda one: one.divergence is None or one.divergence >= levels.step,
            lambda one: (
                "never"
                if one.divergence is None
                else f"step {step_number(one.divergence, tie=one.tie)}"
            ),
        ),
        _verdict(
            numbers,
            f"at most {100 * levels.collapsed:g}% of the texts collapse",
            lambda one: one.collapsed_share <= levels.collapsed,
            lambda one: share(one.collapsed_share),
        ),
    ]


def kl_figure(one: NumberFigures) -> str:
    """Mean local KL(p ‖ q) with its unit, or at how many tokens there is none."""
    if one.not_comparable:
        return f"{NOT_NUMBERS} at {one.not_comparable} of {one.tokens + one.not_comparable} tokens"
    return nats(one.kl)


def _verdict(
    numbers: Sequence[NumberFigures],
    level: str,
    keeps: Callable[[NumberFigures], bool],
    figure: Callable[[NumberFigures], str],
) -> Verdict:
    kept = [keeps(one) for one in numbers]
    first = kept.index(False) if False in kept else len(kept)
    later = [one.number for one, keeps_it in zip(numbers, kept, strict=True) if keeps_it]
    fails = numbers[first] if first < len(numbers) else None
    return Verdict(
        level=level,
        keeps=numbers[first - 1] if first else None,
        fails=fails,
        again=later[-1] if first and fails and later[-1] > fails.number else None,
        figure=figure,
    )
