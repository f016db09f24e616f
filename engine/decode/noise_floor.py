"""The noise floor: how far logits move when only the size of the batch changes."""

from collections.abc import Callable

import torch
from torch import Tensor

from .lockstep import Lockstep

MAX_POSITIONS = 32
"""Positions of the prompt that are read at most."""
STEPS = 4


@torch.inference_mode()
def noise_floor(
    alone: Lockstep, batch: Lockstep, prompt: list[int], report: Callable[[float], None]
) -> float:
    """Largest difference of a logit between a model alone and as one of several rows.

    `alone` has one row of the model, `batch` has several, none of which drops anything; neither is
    installed. Measured over the beginning of the prompt and a few greedy steps, with the same
    tokens in every row. Rounding alone can flip what is smaller.
    """
    texts: list[Tensor] = [torch.tensor([prompt[:MAX_POSITIONS]])]
    z: list[list[Tensor]] = [[], []]
    for number, lockstep in enumerate((alone, batch)):
        lockstep.install()
        try:
            for step in range(STEPS):
                report((number * STEPS + step) / (2 * STEPS))
                tokens = texts[step].expand(lockstep.row_count, -1)
                read = lockstep.advance if step else lockstep.prefill
                z[number].append(read(tokens).z.float())
                if lockstep is alone:
                    texts.append(z[number][-1].argmax(dim=-1, keepdim=True))
        finally:
            lockstep.remove()
    # 0 comes first, and stays where logits are no numbers.
    return max([0.0, *((y - x).abs().max().item() for x, y in zip(*z, strict=True))])
