"""Throttled frames: at most one an interval, and at once for a key."""

from collections.abc import Callable
from typing import cast

import pytest
from prunetui.tui import throttle
from prunetui.tui.throttle import KEY_SECONDS, Throttle
from textual.widget import Widget

TURN = 0.1
DRAWING = 0.01


class Clock:
    """Widget whose timers go off when the clock is moved on."""

    def __init__(self) -> None:
        self.now = 100.0
        self.drawn: list[float] = []
        self._timers: list[tuple[float, Clock.Timer, Callable[[], object]]] = []

    class Timer:
        running = True

        def stop(self) -> None:
            self.running = False

    def set_timer(self, wait: float, call: Callable[[], object]) -> Timer:
        timer = Clock.Timer()
        self._timers.append((self.now + wait, timer, call))
        return timer

    def draw(self) -> None:
        self.drawn.append(round(self.now - 100, 6))
        self.now += DRAWING

    def move_on(self, seconds: float) -> None:
        until = self.now + seconds
        for due, timer, call in sorted(self._timers, key=lambda timed: timed[0]):
            if due <= until and timer.running:
                timer.stop()
                self.now = max(self.now, due)
                call()
        self.now = max(self.now, until)


def throttle_of(clock: Clock) -> Throttle:
    return Throttle(cast(Widget, clock), 1 / TURN, clock.draw)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(throttle, "monotonic", lambda: made.now)
    return made


def test_what_was_asked_for_last_is_drawn_at_its_turn(clock: Clock) -> None:
    frames = throttle_of(clock)
    for _ in range(5):
        frames.request()
    assert clock.drawn == [0]
    clock.move_on(1)
    assert clock.drawn == [0, TURN]


def test_a_key_does_not_wait_for_the_turn_after_another_frame(clock: Clock) -> None:
    frames = throttle_of(clock)
    frames.request()
    clock.move_on(0.005)
    frames.request()
    frames.request(by_key=True)
    # The frame that was to come is this one.
    assert clock.drawn == [0, 0.015]
    clock.move_on(1)
    assert clock.drawn == [0, 0.015]


def test_of_keys_that_come_fast_not_each_has_a_frame(clock: Clock) -> None:
    frames = throttle_of(clock)
    frames.request(by_key=True)
    for _ in range(3):
        frames.request(by_key=True)
    assert clock.drawn == [0]
    clock.move_on(1)
    assert clock.drawn == [0, round(DRAWING + KEY_SECONDS, 6)]
