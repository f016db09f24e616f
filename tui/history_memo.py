"""Memo of a value derived from a trace's steps."""

from collections.abc import Callable
from typing import Generic, TypeVar

from ..engine.trace.records import Step

T = TypeVar("T")


class HistoryMemo(Generic[T]):
    """Value derived from one history, kept for one `key`.

    A history is identified by its list of steps, which the session's thread extends while it is
    shown; another list is another history.
    """

    def __init__(self) -> None:
        self.step_count = 0
        """Number of steps in the last value of `computed`."""
        self._steps: list[Step] | None = None
        self._key: object = None
        self._value: T

    def growing(self, steps: list[Step], key: object, start: Callable[[], T]) -> T:
        """Value that its owner extends by new steps; `start()` for another history or key."""
        if not self._holds(steps, key):
            self._set(steps, key, start())
        return self._value

    def computed(
        self,
        steps: list[Step],
        key: object,
        compute: Callable[[list[Step]], T],
        *,
        most_missing: int = 0,
    ) -> T:
        """Value of a copy of the steps, at most `most_missing` of the newest left out."""
        count = len(steps)
        if not self._holds(steps, key) or count - self.step_count > most_missing:
            self._set(steps, key, compute(steps[:count]))
            self.step_count = count
        return self._value

    def _holds(self, steps: list[Step], key: object) -> bool:
        return steps is self._steps and key == self._key

    def _set(self, steps: list[Step], key: object, value: T) -> None:
        self._steps, self._key, self._value = steps, key, value
