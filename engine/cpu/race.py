"""How long calls take on this machine: what the engine chooses between two ways by."""

import time
from collections.abc import Callable, Iterable
from typing import Any

ROUNDS = 8
PLAINLY = 0.92
"""Of the other's time. Where two ways are nearly even, a session takes the same one each time: they
round differently."""


def plainly_faster(these: Iterable[Callable[[], Any]], those: Iterable[Callable[[], Any]]) -> bool:
    """Whether a round of the first calls takes plainly less time than one of the others.

    By the least of a few rounds, in turns: what else the machine does slows both.
    """
    ways = [*these], [*those]
    least = [float("inf")] * 2
    for _ in range(ROUNDS):
        for way, calls in enumerate(ways):
            began = time.perf_counter()
            for call in calls:
                call()
            least[way] = min(least[way], time.perf_counter() - began)
    return least[0] < PLAINLY * least[1]
