"""Comparison of a lane's chosen tokens with the baseline's."""

from collections.abc import Iterable

from .records import Header, Step

NOT_NUMBERS = "not numbers"
"""What is said of a lane whose logits have no softmax, and of what cannot be measured then."""


def not_numbers_mark(steps: int) -> str:
    """Where so many steps of a lane would stand in its text; no part of that."""
    return f"⟨{NOT_NUMBERS} ×{steps}⟩" if steps > 1 else f"⟨{NOT_NUMBERS}⟩"


def chose_nothing(step: Step, lane: int) -> bool:
    """The lane's logits are not numbers, and nobody chose for it."""
    token = step.lanes[lane]
    return token is not None and token.not_numbers and not token.forced


def chosen_tokens(steps: Iterable[Step], lane: int) -> list[int]:
    """Up to the lane's end; what it did not choose is like no other token."""
    return [
        -1 - step.step if chose_nothing(step, lane) else token.token
        for step in steps
        if (token := step.lanes[lane])
    ]


def differs(step: Step, lane: int) -> bool:
    """The lane's token is not the baseline's, or just one of the two has ended or no logits that
    are numbers."""
    own, baseline = step.lanes[lane], step.lanes[0]
    if own is None or baseline is None:
        return own is not baseline
    return own.not_numbers != baseline.not_numbers or own.token != baseline.token


def is_tie(header: Header, step: Step, lane: int) -> bool:
    """The baseline's first two tokens are so close that rounding alone could have made the lane's
    another: of tokens that were the most probable, neither drawn nor forced."""
    own, baseline = step.lanes[lane], step.lanes[0]
    return (
        baseline is not None
        and baseline.margin is not None
        and baseline.margin < header.noise_floor
        and header.sampling.temperature == 0
        and not baseline.forced
        and not (own and (own.forced or own.not_numbers))
    )


def first_divergence(steps: list[Step], lane: int) -> int | None:
    """The first step at which the lane's token differs from the baseline's."""
    return next((step.step for step in steps if differs(step, lane)), None)
