"""What every view is."""

from collections.abc import Callable
from typing import Generic, TypeVar

from textual.containers import Vertical

from ...engine.trace.records import Step
from ..moment import Moment

T = TypeVar("T")


class Kept(Generic[T]):
    """What was last computed from a trace's steps, which many frames show from one cursor or
    another."""

    def __init__(self) -> None:
        self._steps: list[Step] | None = None
        self._key: object = None
        self._value: T

    def of(self, steps: list[Step], key: object, compute: Callable[[list[Step]], T]) -> T:
        """Computed anew for other steps, more of them, or another `key`; of a copy, as they may
        become more meanwhile."""
        count = len(steps)
        key = count, key
        if steps is not self._steps or key != self._key:
            self._value = compute(steps[:count])
            self._steps, self._key = steps, key
        return self._value


class InspectorView(Vertical):
    """Fills the screen between the status line and the keys while it is chosen.

    Draws the trace at the cursor and nothing else, so it looks the same live and in a replay.
    """

    FRAMES = 2.0
    """A second, at the most: a large chart costs some 50 ms."""

    def show(self, moment: Moment) -> None:
        """Called while the view is chosen, whenever the trace, the cursor or the lane changed."""
        raise NotImplementedError

    def turn(self) -> None:
        """To the next way of drawing, in a view that has several; show it after."""
