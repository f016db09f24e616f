"""Parts of recorded steps that a test knows to be there, and sessions run to their end."""

from collections.abc import Iterable
from typing import TypeVar

from prunetui.engine.session.session import Session
from prunetui.engine.trace.records import Drift, Step, Token

T = TypeVar("T")


def present(value: T | None) -> T:
    """The value, which must not be None."""
    assert value is not None
    return value


def whole(values: list[T | None]) -> list[T]:
    """The values, none of which may be None."""
    return [present(value) for value in values]


def token_of(step: Step, lane: int = 0) -> Token:
    """Token of a lane that has not ended before."""
    return present(step.lanes[lane])


def drift_of(step: Step, lane: int = 1) -> Drift:
    """Drift of a lane that is compared with the baseline."""
    return present(step.drift_of(lane))


def local_of(step: Step, lane: int = 1) -> Drift:
    """Local drift of a lane, in context both."""
    return present(step.local_of(lane))


def lane_tokens(steps: Iterable[Step], lane: int = 0) -> list[int]:
    """Ids of the tokens that a lane chose, up to its end."""
    return [token.token for step in steps if (token := step.lanes[lane])]


def decode_all(session: Session) -> list[Step]:
    """Every step of the session, decoded until it is finished."""
    while session.finished is None:
        session.step()
    return session.trace.steps
