"""Drawing no more often than is worth its bytes."""

from collections.abc import Callable
from time import monotonic

from textual.timer import Timer
from textual.widget import Widget


class Throttle:
    """Calls `draw` at most `per_second` times; what was asked for last is always drawn."""

    def __init__(self, widget: Widget, per_second: float, draw: Callable[[], None]) -> None:
        self._widget = widget
        self._interval = 1 / per_second
        self._draw = draw
        self._drawn = -self._interval
        self._timer: Timer | None = None

    def request(self) -> None:
        if self._timer is not None:
            return
        wait = self._drawn + self._interval - monotonic()
        if wait > 0:
            self._timer = self._widget.set_timer(wait, self._now)
        else:
            self._now()

    def _now(self) -> None:
        self._timer = None
        self._drawn = monotonic()
        self._draw()
