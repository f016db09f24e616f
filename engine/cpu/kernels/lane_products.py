"""Products of vectors of each lane with those of lane 0, on a CPU, in float64."""

import numpy as np

from ..runtime import openmp
from ..runtime.instruction import DOTS, FIRST, INPUT, KIND, OUTPUT, ROWS, Task
from .scalars import REORDERED, at, compiled, read

_LANES, _SIZE, _END = range(FIRST, FIRST + 3)


def dots(points: int, lanes: int, size: int) -> Task:
    """Of vectors [points, lanes, size]: x·x, x·d and d·d, float64 [3, points, variants]."""
    fields = np.zeros(_END, np.int64)
    fields[[KIND, ROWS, _LANES, _SIZE]] = DOTS, points, lanes, size
    return Task(fields, ())


@compiled()
def multiply_lanes(task, half):
    """This thread's share of the vectors."""
    thread, count = np.int64(openmp.number()), np.int64(openmp.count())
    size, variants = task[_SIZE], task[_LANES] - 1
    vectors = task[ROWS] * variants
    out = at(task[OUTPUT], np.float64)
    for number in range(vectors * thread // count, vectors * (thread + 1) // count):
        first = number // variants * task[_LANES]
        _multiply(
            task[INPUT], first, first + 1 + number % variants, size, half, out, number, vectors
        )


@compiled(fastmath=REORDERED)
def _multiply(vectors, first, second, size, half, out, place, apart):
    x_dot_x = x_dot_d = d_dot_d = 0.0
    for i in range(size):
        x = np.float64(read(vectors, first * size + i, half))
        d = np.float64(read(vectors, second * size + i, half)) - x
        x_dot_x += x * x
        x_dot_d += x * d
        d_dot_d += d * d
    out[place], out[apart + place], out[2 * apart + place] = x_dot_x, x_dot_d, d_dot_d
