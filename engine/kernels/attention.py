"""Attention of one position over a cache, on a CPU: turned, written to the cache, and attended.

Each key and value is read once, by one thread, for all queries that share it. Threads take parts of
the positions, which are joined then: a few heads would keep few threads busy.
"""

import numpy as np
import torch
from torch import Tensor

from . import threads
from .products import scale
from .scalars import REORDERED, at, compiled, exp, float_of, read, rounded, word_of
from .task import ATTENTION, FIRST, INPUT, JOIN, KIND, OUTPUT, ROWS, Task, address
from .vectors import AT_ONCE, MOST, STRIDE, float_mix, float_score, half_mix, half_score

PART = 1024
"""Positions that one thread attends to at a time. What comes out depends on it, but not on the
number of threads."""

LENGTH, ROOM, KEY_ROOM, VALUE_ROOM, COS, SIN, PARTS = range(FIRST, FIRST + 7)
"""Positions, the new one too, in so much room; the rooms [rows, keys, room, width]; what heads turn
by, float32 [width], the first half of the sine with the other sign; and room for what comes of the
parts, `part_sizes` float32 numbers."""
_QUERIES, _KEYS, _WIDTH, _SCALING, _QUERY_NORM, _KEY_NORM, _EPS, _END = range(FIRST + 7, FIRST + 15)


def attends(width: int) -> bool:
    """Whether heads of that width can be attended to."""
    return width % STRIDE == 0


def attention(
    queries: int,
    keys: int,
    width: int,
    scaling: float,
    norms: tuple[Tensor, Tensor, float] | None = None,
) -> list[Task]:
    """Of one position in each row to all positions in the cache: heads [rows, queries + 2 keys,
    width], not turned yet, which the first task reads, give [rows, queries, width], which the
    second one writes. The fields above are to be the same in both.

    `queries` and `keys` are numbers of heads; `norms` are the weights [width] of RMS norms of
    queries and keys, and ε.
    """
    constants = torch.tensor([scaling, norms[2] if norms else 0], dtype=torch.float64)
    weights = [norm.float() for norm in norms[:2]] if norms else [None, None]
    tasks = []
    for kind in (ATTENTION, JOIN):
        fields = np.zeros(_END, np.int64)
        fields[[KIND, _QUERIES, _KEYS, _WIDTH]] = kind, queries, keys, width
        fields[[_SCALING, _EPS]] = address(constants), address(constants[1])
        fields[[_QUERY_NORM, _KEY_NORM]] = [address(weight) for weight in weights]
        tasks.append(Task(fields, (constants, weights)))
    return tasks


def attention_room(width: int) -> int:
    """Numbers that a thread needs: queries, scores and a head."""
    return MOST * (width + PART + AT_ONCE) + width


def part_sizes(rows: int, queries: int, width: int, length: int) -> int:
    """Of each query in each part what it mixes, its highest score and the sum of exponentials."""
    return rows * queries * -(-length // PART) * (width + 2)


@compiled(inline="always")
def attend(task, scratch, half):
    """This thread's share of the parts of the rows' key heads."""
    thread, count = np.int64(threads.number()), np.int64(threads.count())
    parts = (task[LENGTH] + PART - 1) // PART
    every = task[ROWS] * task[_KEYS] * parts
    for number in range(every * thread // count, every * (thread + 1) // count):
        _attend_part(task, number // parts, number % parts, number, scratch, half)


@compiled(inline="always")
def _attend_part(task, head, part, number, scratch, half):
    """The queries that share a key head, of which there are some in each row."""
    width, length = task[_WIDTH], task[LENGTH]
    size = 2 if half else 4
    head_bytes, middle = width * size, width // 2
    row, key_head = head // task[_KEYS], head % task[_KEYS]
    shared = task[_QUERIES] // task[_KEYS]
    inputs = task[INPUT] + row * (task[_QUERIES] + 2 * task[_KEYS]) * head_bytes
    begin = part * PART
    positions, stride = min(PART, length - begin), PART + AT_ONCE
    held = (head * task[ROOM] + begin) * head_bytes
    keys, values = task[KEY_ROOM] + held, task[VALUE_ROOM] + held
    queries, scores = scratch, scratch + MOST * width * 4
    spare = scores + MOST * stride * 4
    turned = at(spare, np.float32)
    mixed = task[PARTS] + number * shared * (width + 2) * 4
    sums = at(mixed + shared * width * 4, np.float32)

    if begin + positions == length:
        key = inputs + (task[_QUERIES] + key_head) * head_bytes
        value, last = key + task[_KEYS] * head_bytes, (positions - 1) * head_bytes
        _turn(task, key, task[_KEY_NORM], spare, half)
        for i in range(width):
            _write(keys + last, i, turned[i], half)
            _write(values + last, i, read(value, i, half), half)

    scaling = np.float32(at(task[_SCALING], np.float64)[0])
    for first in range(0, shared, MOST):
        count = min(MOST, shared - first)
        for query in range(count):
            place = inputs + (key_head * shared + first + query) * head_bytes
            _turn(task, place, task[_QUERY_NORM], spare, half)
            out = at(queries + query * width * 4, np.float32)
            for i in range(width):
                # With bfloat16 keys the even columns come first.
                place = i // 2 + i % 2 * middle if half else i
                out[place] = turned[i] * scaling
        out = mixed + first * width * 4
        if half:
            half_score(count, queries, keys, positions, width, scores, stride)
        else:
            float_score(count, queries, keys, positions, width, scores, stride)
        for query in range(count):
            of_query = at(scores + query * stride * 4, np.float32)
            highest = _highest(of_query, positions)
            for i in range(positions):
                of_query[i] = exp(of_query[i] - highest)
            place = 2 * (first + query)
            sums[place], sums[place + 1] = highest, _sum(of_query, positions)
        if half:
            half_mix(count, scores, stride, values, positions, width, out)
        else:
            float_mix(count, scores, stride, values, positions, width, out)


@compiled()
def join(task, scratch, half):
    """The parts of this thread's share of the queries."""
    thread, count = np.int64(threads.number()), np.int64(threads.count())
    width, queries = task[_WIDTH], task[ROWS] * task[_QUERIES]
    shared, middle = task[_QUERIES] // task[_KEYS], width // 2
    parts = (task[LENGTH] + PART - 1) // PART
    numbers, joined = at(task[PARTS], np.float32), at(scratch, np.float32)
    for query in range(queries * thread // count, queries * (thread + 1) // count):
        first = query // shared * parts * shared * (width + 2)
        mixed = first + query % shared * width
        sums = first + shared * width + query % shared * 2
        apart = shared * (width + 2)
        highest, total = np.float32(-np.inf), np.float32(0)
        for part in range(parts):
            highest = max(highest, numbers[sums + part * apart])
        for i in range(width):
            joined[i] = 0
        for part in range(parts):
            weight = exp(numbers[sums + part * apart] - highest)
            total += weight * numbers[sums + part * apart + 1]
            for i in range(width):
                joined[i] += weight * numbers[mixed + part * apart + i]
        out = task[OUTPUT] + query * width * (2 if half else 4)
        for i in range(width):
            _write(out, i, joined[i // 2 + i % 2 * middle if half else i] / total, half)


@compiled(forceinline=True)
def _turn(task, head, norm, out, half):
    """A head [width], normed if it is to be, behind the rotary embedding; each operation is rounded
    as the stock ones."""
    width = task[_WIDTH]
    middle = width // 2
    cos, sin, numbers = at(task[COS], np.float32), at(task[SIN], np.float32), at(out, np.float32)
    for i in range(width):
        numbers[i] = read(head, i, half)
    if norm:
        weight, eps = at(norm, np.float32), np.float32(at(task[_EPS], np.float64)[0])
        by = scale(numbers, width, eps)
        for i in range(width):
            numbers[i] = _round(weight[i] * _round(numbers[i] * by, half), half)
    for i in range(middle):
        one, other = numbers[i], numbers[i + middle]
        a, b = _round(one * cos[i], half), _round(other * sin[i], half)
        c, d = _round(other * cos[i + middle], half), _round(one * sin[i + middle], half)
        numbers[i], numbers[i + middle] = _round(a + b, half), _round(c + d, half)


# Where no number is NaN. If one is, whatever this gives, the sum behind it is NaN.
@compiled(fastmath={"nnan", "nsz"})
def _highest(numbers, count):
    highest = numbers[0]
    for i in range(1, count):
        highest = max(highest, numbers[i])
    return highest


@compiled(fastmath=REORDERED)
def _sum(numbers, count):
    total = np.float32(0)
    for i in range(count):
        total += numbers[i]
    return total


@compiled(forceinline=True)
def _write(head, i, number, half):
    if half:
        at(head, np.uint16)[i] = np.uint16(rounded(word_of(number)) >> np.uint32(16))
    else:
        at(head, np.float32)[i] = number


@compiled(forceinline=True)
def _round(number, half):
    return float_of(np.uint32(rounded(word_of(number)))) if half else number
