"""Comparison of a lane's chosen tokens with the baseline's."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from .records import Header, Step

NOT_NUMBERS = "not numbers"
"""Words for a lane whose logits have no softmax, and for a measure that needs one."""


class TokenChoice(Protocol):
    """What a comparison needs of a `Token`."""

    @property
    def token(self) -> int: ...
    @property
    def margin(self) -> float | None: ...
    @property
    def forced(self) -> bool: ...
    @property
    def not_numbers(self) -> bool: ...


class StepChoices(Protocol):
    """What a comparison needs of a `Step`."""

    @property
    def lanes(self) -> Sequence[TokenChoice | None]: ...


def not_numbers_mark(steps: int) -> str:
    """Mark shown in a lane's text for so many steps without a token; no part of the text."""
    return f"⟨{NOT_NUMBERS} ×{steps}⟩" if steps > 1 else f"⟨{NOT_NUMBERS}⟩"


def chose_nothing(step: Step, lane: int) -> bool:
    """Whether the lane's logits are not numbers and the user forced no token."""
    token = step.lanes[lane]
    return token is not None and token.not_numbers and not token.forced


def chosen_tokens(steps: Iterable[Step], lane: int) -> list[int]:
    """Tokens up to the lane's end; a step at which it chose nothing gets a number of its own."""
    return [
        -1 - step.step if chose_nothing(step, lane) else token.token
        for step in steps
        if (token := step.lanes[lane])
    ]


def differs(step: StepChoices, lane: int) -> bool:
    """Whether the lane's token is not the baseline's, or only one of the two has ended or lacks
    logits that are numbers."""
    own, baseline = step.lanes[lane], step.lanes[0]
    if own is None or baseline is None:
        return own is not baseline
    return own.not_numbers != baseline.not_numbers or own.token != baseline.token


def is_tie(header: Header, step: StepChoices, lane: int) -> bool:
    """Whether the baseline's two highest logits are closer than the noise floor, so that rounding
    alone can make tokens differ: under greedy decoding, with no token forced."""
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
    """First step at which the lane's token differs from the baseline's."""
    return next((step.step for step in steps if differs(step, lane)), None)
