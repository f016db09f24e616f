"""Weights of float32 in fewer bytes that say the same, and back.

Most weights come from less: checkpoints hold bfloat16 or float16, and GGUF's quantized types a
scale, an offset and small integers.
"""

import torch
from torch import Tensor

from .kernels.packing import Narrow, narrowing, widening
from .kernels.simd import SCALED, SCALED_BYTES, fuses
from .runtime.interpreter import Program


def narrowed(weight: Tensor) -> Tensor | Narrow:
    """Weights [outputs, inputs] that `products.multiplies` as a step reads them fastest: of float32
    ones a narrow copy, if each of them is the same there."""
    if weight.dtype != torch.float32:
        return weight
    outputs, inputs = weight.shape
    if fuses():
        scaled = torch.empty(outputs, inputs // SCALED * SCALED_BYTES, dtype=torch.uint8)
        failed = torch.zeros(1, dtype=torch.int64)
        Program([narrowing(weight, scaled, failed)], weight.dtype).run(0)
        if not failed:
            return Narrow(weight.shape, scaled)
    for dtype in (torch.bfloat16, torch.float16):
        # Most that one row says no to need no look at all of them.
        for rows in (weight[:1], weight):
            half = rows.to(dtype)
            if not torch.equal(half.float(), rows):
                break
        else:
            return Narrow(weight.shape, half)
    return weight


def widened(narrow: Narrow) -> Tensor:
    """The weights as they were, but for the sign of a 0."""
    if narrow.held.dtype != torch.uint8:
        return narrow.held.float()
    weight = torch.empty(narrow.shape, dtype=torch.float32)
    Program([widening(narrow, weight)], weight.dtype).run(0)
    return weight
