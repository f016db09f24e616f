"""The faster of two ways: by the least of a few rounds, and only where the difference is plain."""

import itertools

import pytest
from prunetui.engine.cpu import race as timing
from prunetui.engine.cpu.race import plainly_faster


@pytest.mark.parametrize(("seconds", "faster"), [(0.91, True), (0.93, False), (1.5, False)])
def test_a_small_difference_does_not_count(seconds: float, faster: bool, monkeypatch) -> None:
    now = 0.0
    calls = itertools.count()

    def take(amount: float) -> None:
        nonlocal now
        # All rounds but the last of each are slow.
        now += amount + (100 if next(calls) < 2 * timing.ROUNDS - 2 else 0)

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    assert plainly_faster([lambda: take(seconds)], [lambda: take(1.0)]) == faster
