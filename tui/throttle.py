"""Drawing no more often than is worth its bytes."""

from collections.abc import Callable
from time import monotonic

from textual.timer import Timer
from textual.widget import Widget

KEY_SECONDS = 1 / 30
"""Between two frames that keys ask for; a frame that takes longer is waited for as long again."""


class Throttle:
    """Calls `draw` at most `per_second` times; what was asked for last is always drawn."""

    def __init__(self, widget: Widget, per_second: float, draw: Callable[[], None]) -> None:
        self._widget = widget
        self._interval = 1 / per_second
        self._draw = draw
        self._began = -self._interval
        self._asked_by_key = False
        self._next_by_key = self._began
        self._timer: Timer | None = None

    @property
    def pending(self) -> bool:
        """Whether a frame waits for its turn."""
        return self._timer is not None

    def request(self, *, by_key: bool = False) -> None:
        """`by_key`: someone waits for it."""
        due = self._began + self._interval
        if by_key:
            # At once after a frame that no key has asked for.
            due = min(due, self._next_by_key)
            self._asked_by_key = True
            if self._timer is not None:
                self._timer.stop()
                self._timer = None
        if self._timer is not None:
            return
        wait = due - monotonic()
        if wait > 0:
            self._timer = self._widget.set_timer(wait, self._now)
        else:
            self._now()

    def _now(self) -> None:
        self._timer = None
        self._began = monotonic()
        self._draw()
        if self._asked_by_key:
            ended = monotonic()
            self._next_by_key = ended + max(KEY_SECONDS, ended - self._began)
            self._asked_by_key = False
