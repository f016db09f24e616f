"""Limits on how often a widget is drawn."""

from collections.abc import Callable
from time import monotonic

from textual.timer import Timer
from textual.widget import Widget

KEY_SECONDS = 1 / 30
"""Least pause after a frame that a key requested; a frame that takes longer pauses as long."""


class Throttle:
    """Calls `draw` at most `per_second` times a second; the last request is always drawn."""

    def __init__(self, widget: Widget, per_second: float, draw: Callable[[], None]) -> None:
        self._widget = widget
        self._interval = 1 / per_second
        self._draw = draw
        self._frame_start = -self._interval
        self._key_waits = False
        self._next_key_frame = self._frame_start
        self._timer: Timer | None = None

    @property
    def pending(self) -> bool:
        """Whether a requested frame is not drawn yet."""
        return self._timer is not None

    def request(self, *, by_key: bool = False) -> None:
        """Draw as soon as the rate allows; a frame for a key, which a user awaits, comes sooner."""
        due = self._frame_start + self._interval
        if by_key:
            # At once after a frame that no key has requested.
            due = min(due, self._next_key_frame)
            self._key_waits = True
            if self._timer is not None:
                self._timer.stop()
                self._timer = None
        if self._timer is not None:
            return
        wait = due - monotonic()
        if wait > 0:
            self._timer = self._widget.set_timer(wait, self._draw_now)
        else:
            self._draw_now()

    def _draw_now(self) -> None:
        self._timer = None
        self._frame_start = monotonic()
        self._draw()
        if self._key_waits:
            ended = monotonic()
            self._next_key_frame = ended + max(KEY_SECONDS, ended - self._frame_start)
            self._key_waits = False
