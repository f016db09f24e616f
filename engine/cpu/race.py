"""A race between two ways to compute the same, by which the engine chooses one on this machine."""

import time
from collections.abc import Callable, Iterable
from typing import Any

ROUNDS = 8
PLAINLY = 0.92
"""Share of the reference's time that is plainly less. Where two ways are nearly even, a session
takes the same one each time: they round differently."""


def plainly_faster(
    candidate: Iterable[Callable[[], Any]], reference: Iterable[Callable[[], Any]]
) -> bool:
    """Whether a round of the candidate's calls takes plainly less time than one of the reference's.

    The least of a few rounds, in turns: what else the machine does slows both.
    """
    ways = [*candidate], [*reference]
    least = [float("inf")] * 2
    for _ in range(ROUNDS):
        for way, calls in enumerate(ways):
            began = time.perf_counter()
            for call in calls:
                call()
            least[way] = min(least[way], time.perf_counter() - began)
    return least[0] < PLAINLY * least[1]
