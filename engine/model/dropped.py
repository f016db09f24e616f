"""Which sublayers a lane drops."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LaneGates:
    """The layers whose attention and MLP one lane drops; none in the baseline."""

    attention: frozenset[int] = frozenset()
    mlp: frozenset[int] = frozenset()
