"""Seconds of the steps of transformers' own `generate`."""

import itertools
import time
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from ..support.models import generate


class _Clock:
    """Streamer that notes the times at which it is given tokens."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, _tokens: Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


def generate_seconds(
    model: PreTrainedModel, tokens: Tensor, steps: int, **settings: Any
) -> list[float]:
    """Seconds of each step of greedy decoding after int64 [1, positions], the prefill left out."""
    clock = _Clock()
    counts = {"min_new_tokens": steps, "max_new_tokens": steps}
    generate(model, tokens, do_sample=False, **counts, streamer=clock, **settings)
    # The first put is the prompt, the second follows the prefill.
    return [after - before for before, after in itertools.pairwise(clock.times[1:])]
