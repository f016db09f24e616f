"""Kernels that pack float32 weights losslessly into scales, offsets and small integers, and back.

GGUF's quantized types are made of such; a step that reads them reads less.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..runtime.instruction import (
    FIRST,
    INPUT,
    KIND,
    OUTPUT,
    PACK,
    ROWS,
    UNPACK,
    Instruction,
    address,
)
from .scalars import at, bits_of, compiled, float_from_bits, fma, thread_share
from .simd import SCALED_BLOCK, SCALED_BLOCK_BYTES, ZERO_CODE

SCALE_ULPS = 2
"""Units in the last place that a scale can differ from the difference of two weights."""

_COLUMNS, _FAILED, _END = range(FIRST, FIRST + 3)


@dataclass(frozen=True)
class PackedWeight:
    """float32 weights [outputs, inputs] in fewer bytes, exact but for the sign of a 0."""

    shape: torch.Size
    data: Tensor
    """bfloat16 or float16 [outputs, inputs], or uint8 [outputs, inputs / SCALED_BLOCK ·
    SCALED_BLOCK_BYTES], the scaled blocks of `simd`."""
    dtype = torch.float32

    @property
    def nbytes(self) -> int:
        return self.data.nbytes


def pack_instruction(weight: Tensor, scaled: Tensor, failed: Tensor) -> Instruction:
    """Pack float32 weights [outputs, inputs] into scaled blocks; `failed`, int64 [1], becomes 1 if
    some weights would change."""
    fields = np.zeros(_END, np.int64)
    fields[[KIND, ROWS, _COLUMNS]] = PACK, *weight.shape
    fields[[INPUT, OUTPUT, _FAILED]] = address(weight), address(scaled), address(failed)
    return Instruction(fields, (weight, scaled, failed))


def unpack_instruction(packed: PackedWeight, weight: Tensor) -> Instruction:
    """Unpack scaled blocks to float32 [outputs, inputs]."""
    fields = np.zeros(_END, np.int64)
    fields[[KIND, ROWS, _COLUMNS]] = UNPACK, *packed.shape
    fields[[INPUT, OUTPUT]] = address(packed.data), address(weight)
    return Instruction(fields, (packed, weight))


@compiled()
def pack(fields):
    """Pack this thread's share of the rows."""
    rows, columns = fields[ROWS], fields[_COLUMNS]
    blocks = columns // SCALED_BLOCK
    failed = at(fields[_FAILED], np.int64)
    begin, end = thread_share(rows)
    for row in range(begin, end):
        if failed[0]:
            break
        weights = fields[INPUT] + row * columns * 4
        out = fields[OUTPUT] + row * blocks * SCALED_BLOCK_BYTES
        for block in range(blocks):
            if not _pack_block(
                weights + block * SCALED_BLOCK * 4, out + block * SCALED_BLOCK_BYTES
            ):
                failed[0] = 1
                break


@compiled(forceinline=True)
def _pack_block(weights, out):
    """Write one scaled block; return whether it is exact."""
    numbers, integers = at(weights, np.float32), at(out + 8, np.uint8)
    least, most = np.float32(np.inf), np.float32(-np.inf)
    for i in range(SCALED_BLOCK):
        if numbers[i] != 0:
            least, most = min(least, numbers[i]), max(most, numbers[i])
    if least > most:
        least = most = np.float32(0)
    at(out + 4, np.float32)[0] = least
    span = gap = np.float32(1)
    if most > least:
        span, gap = most - least, _smallest_gap(numbers, least)
    for digit in range(2 * SCALE_ULPS + 1):
        off = (digit + 1) // 2 if digit % 2 else -digit // 2
        # The nearest two need not be neighbours on the scale.
        for apart in range(1, ZERO_CODE):
            levels = np.rint(span / gap * np.float32(apart))
            if not levels < ZERO_CODE:
                break
            scale = float_from_bits(np.uint32(bits_of(span / levels) + off))
            if _quantize_block(numbers, scale, least, integers):
                at(out, np.float32)[0] = scale
                return True
    return False


@compiled(forceinline=True)
def _smallest_gap(weights, least):
    """The smallest difference of two weights that are neither equal nor 0."""
    # Compared as bits, as vectors can; less 1, which makes 0 the largest.
    gap = np.uint32(0xFFFFFFFF)
    for i in range(SCALED_BLOCK):
        a = weights[i] if weights[i] != 0 else least
        for j in range(SCALED_BLOCK):
            b = weights[j] if weights[j] != 0 else least
            gap = min(gap, np.uint32(bits_of(abs(a - b)) - np.uint32(1)))
    return float_from_bits(np.uint32(gap + np.uint32(1)))


@compiled(forceinline=True)
def _quantize_block(weights, scale, least, integers):
    """Write each weight's steps of a scale from the least on, or ZERO_CODE; return whether all are
    exact."""
    inexact, inverse = np.int32(0), np.float32(1) / scale
    for i in range(SCALED_BLOCK):
        is_zero, steps = weights[i] == 0, np.rint((weights[i] - least) * inverse)
        inexact += np.int32(not (is_zero or fma(steps, scale, least) == weights[i]))
        integers[i] = np.uint8(ZERO_CODE) if is_zero else np.uint8(np.int32(steps))
    return inexact == 0


@compiled()
def unpack(fields):
    """Unpack this thread's share of the blocks."""
    blocks = fields[ROWS] * fields[_COLUMNS] // SCALED_BLOCK
    begin, end = thread_share(blocks)
    for block in range(begin, end):
        source = fields[INPUT] + block * SCALED_BLOCK_BYTES
        numbers, integers = at(source, np.float32), at(source + 8, np.uint8)
        weights = at(fields[OUTPUT] + block * SCALED_BLOCK * 4, np.float32)
        for i in range(SCALED_BLOCK):
            number = fma(np.float32(integers[i]), numbers[0], numbers[1])
            weights[i] = np.float32(0) if integers[i] == ZERO_CODE else number
