"""Dot products of each lane's vectors with those of lane 0, on a CPU, in float64."""

import numpy as np

from ..runtime.instruction import FIRST, INPUT, KIND, LANE_PRODUCTS, OUTPUT, ROWS, Instruction
from .scalars import REORDERED, at, compiled, read, thread_share

_LANES, _SIZE, _END = range(FIRST, FIRST + 3)


def lane_products_instruction(points: int, lanes: int, size: int) -> Instruction:
    """Write x·x, x·d and d·d, float64 [3, points, variants], of vectors [points, lanes, size]."""
    fields = np.zeros(_END, np.int64)
    fields[[KIND, ROWS, _LANES, _SIZE]] = LANE_PRODUCTS, points, lanes, size
    return Instruction(fields, ())


@compiled()
def multiply_lanes(fields, is_bfloat16):
    """Write the products of this thread's share of the vectors."""
    size, variants = fields[_SIZE], fields[_LANES] - 1
    vectors = fields[ROWS] * variants
    out = at(fields[OUTPUT], np.float64)
    begin, end = thread_share(vectors)
    for number in range(begin, end):
        x = number // variants * fields[_LANES]
        y = x + 1 + number % variants
        _multiply(fields[INPUT], x, y, size, is_bfloat16, out, number, vectors)


@compiled(fastmath=REORDERED)
def _multiply(vectors, x_index, y_index, size, is_bfloat16, out, column, stride):
    x_dot_x = x_dot_d = d_dot_d = 0.0
    for i in range(size):
        x = np.float64(read(vectors, x_index * size + i, is_bfloat16))
        d = np.float64(read(vectors, y_index * size + i, is_bfloat16)) - x
        x_dot_x += x * x
        x_dot_d += x * d
        d_dot_d += d * d
    out[column], out[stride + column], out[2 * stride + column] = x_dot_x, x_dot_d, d_dot_d
