"""Lossless packing of float32 weights into fewer bytes.

Most weights come from less: checkpoints hold bfloat16 or float16, and GGUF's quantized types a
scale, an offset and small integers.
"""

import torch
from torch import Tensor

from .kernels.packing import PackedWeight, pack_instruction, unpack_instruction
from .kernels.simd import SCALED_BLOCK, SCALED_BLOCK_BYTES, has_fma
from .runtime.interpreter import Interpreter


def pack_weight(weight: Tensor) -> Tensor | PackedWeight:
    """Weights [outputs, inputs] as a step reads them fastest: float32 ones packed if none of them
    changes by that, others as they are. The weight must be one that `can_multiply`."""
    if weight.dtype != torch.float32:
        return weight
    outputs, inputs = weight.shape
    if has_fma():
        scaled = torch.empty(
            outputs, inputs // SCALED_BLOCK * SCALED_BLOCK_BYTES, dtype=torch.uint8
        )
        failed = torch.zeros(1, dtype=torch.int64)
        Interpreter([pack_instruction(weight, scaled, failed)], weight.dtype).run(0)
        if not failed:
            return PackedWeight(weight.shape, scaled)
    for dtype in (torch.bfloat16, torch.float16):
        # Most weights that do not fit are known by their first row.
        for rows in (weight[:1], weight):
            half = rows.to(dtype)
            if not torch.equal(half.float(), rows):
                break
        else:
            return PackedWeight(weight.shape, half)
    return weight


def unpack_weight(packed: PackedWeight) -> Tensor:
    """The float32 weights as they were before packing, but for the sign of a 0."""
    if packed.data.dtype != torch.uint8:
        return packed.data.float()
    weight = torch.empty(packed.shape, dtype=torch.float32)
    Interpreter([unpack_instruction(packed, weight)], weight.dtype).run(0)
    return weight
