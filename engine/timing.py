"""How long calls take on this machine: what the engine chooses between two ways by."""

import time
from collections.abc import Callable, Iterable
from typing import Any

ROUNDS = 5
PLAINLY = 0.85
"""Of the other's time. Where two ways are nearly even, a session takes the same one each time: they
round differently."""


def plainly_faster(these: Iterable[Callable[[], Any]], those: Iterable[Callable[[], Any]]) -> bool:
    """Whether a round of the first calls takes plainly less time than one of the others."""
    return _least_seconds([*these]) < PLAINLY * _least_seconds([*those])


def _least_seconds(calls: list[Callable[[], Any]]) -> float:
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for call in calls:
            call()
        taken.append(time.perf_counter() - began)
    return min(taken)
