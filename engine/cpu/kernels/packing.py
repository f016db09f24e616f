"""Weights of float32 as scales, offsets and small integers that say the same, and back.

GGUF's quantized types are made of such; a step that reads them reads less.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..runtime import openmp
from ..runtime.instruction import FIRST, INPUT, KIND, NARROW, OUTPUT, ROWS, WIDEN, Task, address
from .scalars import at, compiled, float_of, fma, word_of
from .simd import SCALED, SCALED_BYTES, ZERO

NEAR = 2
"""Units in the last place that the difference of two weights can have a scale off."""

_COLUMNS, _FAILED, _END = range(FIRST, FIRST + 3)


@dataclass(frozen=True)
class Narrow:
    """float32 weights [outputs, inputs], to the last bit but for the sign of a 0."""

    shape: torch.Size
    held: Tensor
    """bfloat16 or float16 [outputs, inputs], or uint8 [outputs, inputs / SCALED · SCALED_BYTES]:
    what `vectors` calls scaled."""
    dtype = torch.float32

    @property
    def nbytes(self) -> int:
        return self.held.nbytes


def narrowing(weight: Tensor, held: Tensor, failed: Tensor) -> Task:
    """Write weights [outputs, inputs], float32, scaled; `failed`, int64 [1], becomes 1 if some
    cannot be."""
    fields = np.zeros(_END, np.int64)
    fields[[KIND, ROWS, _COLUMNS]] = NARROW, *weight.shape
    fields[[INPUT, OUTPUT, _FAILED]] = address(weight), address(held), address(failed)
    return Task(fields, (weight, held, failed))


def widening(held: Narrow, weight: Tensor) -> Task:
    """Write scaled weights as float32 [outputs, inputs]."""
    fields = np.zeros(_END, np.int64)
    fields[[KIND, ROWS, _COLUMNS]] = WIDEN, *held.shape
    fields[[INPUT, OUTPUT]] = address(held.held), address(weight)
    return Task(fields, (held, weight))


@compiled()
def narrow(task):
    """This thread's share of the rows."""
    thread, count = np.int64(openmp.number()), np.int64(openmp.count())
    rows, columns = task[ROWS], task[_COLUMNS]
    blocks = columns // SCALED
    failed = at(task[_FAILED], np.int64)
    for row in range(rows * thread // count, rows * (thread + 1) // count):
        if failed[0]:
            break
        weights = task[INPUT] + row * columns * 4
        out = task[OUTPUT] + row * blocks * SCALED_BYTES
        for block in range(blocks):
            if not _scale(weights + block * SCALED * 4, out + block * SCALED_BYTES):
                failed[0] = 1
                break


@compiled(forceinline=True)
def _scale(weights, out):
    numbers, integers = at(weights, np.float32), at(out + 8, np.uint8)
    least, most = np.float32(np.inf), np.float32(-np.inf)
    for i in range(SCALED):
        if numbers[i] != 0:
            least, most = min(least, numbers[i]), max(most, numbers[i])
    if least > most:
        least = most = np.float32(0)
    at(out + 4, np.float32)[0] = least
    span = gap = np.float32(1)
    if most > least:
        span, gap = most - least, _gap(numbers, least)
    for digit in range(2 * NEAR + 1):
        off = (digit + 1) // 2 if digit % 2 else -digit // 2
        # Where so many numbers would do, the nearest two need not be neighbours.
        for apart in range(1, ZERO):
            levels = np.rint(span / gap * np.float32(apart))
            if not levels < ZERO:
                break
            scale = float_of(np.uint32(word_of(span / levels) + off))
            if _step_by(numbers, scale, least, integers):
                at(out, np.float32)[0] = scale
                return True
    return False


@compiled(forceinline=True)
def _gap(weights, least):
    """Between the two nearest that are neither the same nor 0."""
    # Compared as words, as vectors can; less 1, which makes 0 the largest.
    gap = np.uint32(0xFFFFFFFF)
    for i in range(SCALED):
        one = weights[i] if weights[i] != 0 else least
        for j in range(SCALED):
            other = weights[j] if weights[j] != 0 else least
            gap = min(gap, np.uint32(word_of(abs(one - other)) - np.uint32(1)))
    return float_of(np.uint32(gap + np.uint32(1)))


@compiled(forceinline=True)
def _step_by(weights, scale, least, integers):
    """Whether the weights are 0 or steps of a scale from the least on, and then how many each."""
    others, by = np.int32(0), np.float32(1) / scale
    for i in range(SCALED):
        zero, steps = weights[i] == 0, np.rint((weights[i] - least) * by)
        others += np.int32(not (zero or fma(steps, scale, least) == weights[i]))
        integers[i] = np.uint8(ZERO) if zero else np.uint8(np.int32(steps))
    return others == 0


@compiled()
def widen(task):
    """This thread's share of the blocks."""
    thread, count = np.int64(openmp.number()), np.int64(openmp.count())
    blocks = task[ROWS] * task[_COLUMNS] // SCALED
    for block in range(blocks * thread // count, blocks * (thread + 1) // count):
        held = task[INPUT] + block * SCALED_BYTES
        numbers, integers = at(held, np.float32), at(held + 8, np.uint8)
        weights = at(task[OUTPUT] + block * SCALED * 4, np.float32)
        for i in range(SCALED):
            number = fma(np.float32(integers[i]), numbers[0], numbers[1])
            weights[i] = np.float32(0) if integers[i] == ZERO else number
