"""Numbers that a blame amounts to: what each part gives back, and where in depth KL is lost."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..blame import Blame, NextToken, Part


@dataclass(frozen=True)
class PartEffect:
    """What one part does to the next token, by itself: effects of parts need not add up.

    A number is None where one of the two that it compares is not finite.
    """

    part: Part
    given_back: NextToken
    """The lane with this part as in the baseline."""
    alone: NextToken
    """The baseline with only this part pruned."""
    kl_reduction: float | None
    """KL(p ‖ q) of the lane less that with this part given back, in nats; negative where giving it
    back moves the lane further away from the baseline."""
    gap_given_back: float | None
    """Logit gap (`NextToken.gap`) with this part given back less the lane's; positive where it
    moves the lane towards the baseline's token. None where both prefer the same token anyway."""
    gap_alone: float | None
    """Logit gap of the baseline with only this part pruned less the baseline's own."""
    returns: bool
    """Whether the lane prefers another token than the baseline, and the baseline's with this part
    given back."""
    departs: bool
    """Whether the baseline with only this part pruned prefers another token; false where its
    logits are not numbers."""


def agrees(blame: Blame, form: NextToken) -> bool:
    """Whether the form prefers the baseline's token."""
    return form.chooses(blame.baseline.token)


def effects(blame: Blame) -> list[PartEffect]:
    """Effects of a blame's parts, in their order."""
    differs = not agrees(blame, blame.pruned)
    return [
        PartEffect(
            part=part.part,
            given_back=part.given_back,
            alone=part.alone,
            kl_reduction=difference(blame.pruned.kl, part.given_back.kl),
            gap_given_back=difference(part.given_back.gap, blame.pruned.gap) if differs else None,
            gap_alone=difference(part.alone.gap, blame.baseline.gap) if differs else None,
            returns=differs and agrees(blame, part.given_back),
            departs=not (part.alone.not_numbers or agrees(blame, part.alone)),
        )
        for part in blame.parts
    ]


def by_importance(effects: Iterable[PartEffect]) -> list[PartEffect]:
    """Parts that leave the least KL(p ‖ q) when given back first, not finite ones last."""
    return sorted(effects, key=lambda effect: _or_infinity(effect.given_back.kl))


def by_kl_alone(effects: Iterable[PartEffect]) -> list[PartEffect]:
    """Parts that make the most KL(p ‖ q) when pruned alone first, led by what is not finite."""
    return sorted(effects, key=lambda effect: -_or_infinity(effect.alone.kl))


def rounding(blame: Blame) -> float:
    """Difference of two KL(p ‖ q), in nats, that rounding of the logits could make.

    Noise of the logits with the standard deviation s makes a KL of s² / 2 of 0, which is the floor
    (Theorem 3 of arXiv 2603.24652), and moves any other KL by about s.
    """
    return math.sqrt(2 * max(blame.floor or 0.0, 0.0))


def below_floor(blame: Blame, form: NextToken) -> bool:
    """Whether rounding alone can make the form's KL(p ‖ q)."""
    return form.kl is not None and blame.floor is not None and form.kl <= blame.floor


def point_name(point: int) -> str:
    """Place in depth of a point of `WhereInDepth`: `before attention 0`, `after MLP 3`."""
    if point == 0:
        return "before attention 0"
    layer, second = divmod(point - 1, 2)
    return f"after {'MLP' if second else 'attention'} {layer}"


def half_point(blame: Blame, points: Sequence[NextToken | None]) -> int | None:
    """First point from which on KL(p ‖ q) is at most half of the lane's; None if the last one's is
    not."""
    whole = blame.pruned.kl
    if whole is None:
        return None
    return _from_here_on(points, lambda form: form.kl is not None and form.kl <= whole / 2)


def return_point(blame: Blame, points: Sequence[NextToken | None]) -> int | None:
    """First point from which on the baseline's token is preferred; None if the last one has it
    not."""
    return _from_here_on(points, lambda form: agrees(blame, form))


def difference(a: float | None, b: float | None) -> float | None:
    """Finite difference; None if there is none."""
    if a is None or b is None or not math.isfinite(a - b):
        return None
    return a - b


def _from_here_on(
    points: Sequence[NextToken | None], holds: Callable[[NextToken], bool]
) -> int | None:
    """First point that a family has from which on all hold; None if the last one does not."""
    first = None
    for index, form in enumerate(points):
        if form is not None:
            first = None if not holds(form) else index if first is None else first
    return first


def _or_infinity(kl: float | None) -> float:
    return math.inf if kl is None else kl
