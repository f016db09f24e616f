"""Attention of one position over a cache, on a CPU: turned, written to the cache, and attended.

Each key and value is read once, by one thread, for all queries that share it.
"""

import numpy as np
import torch
from torch import Tensor

from . import threads
from .products import scale
from .scalars import REORDERED, at, compiled, exp, float_of, read, rounded, word_of
from .task import ATTENTION, FIRST, INPUT, KIND, OUTPUT, ROWS, Task, address
from .vectors import MOST, STRIDE, float_dots, float_mix, half_dots, half_mix

LENGTH, ROOM, KEY_ROOM, VALUE_ROOM, COS, SIN = range(FIRST, FIRST + 6)
"""Positions, the new one too, in so much room; the rooms [rows, keys, room, width]; what heads turn
by, float32 [width], the first half of the sine with the other sign."""
_QUERIES, _KEYS, _WIDTH, _SCALING, _QUERY_NORM, _KEY_NORM, _EPS, _END = range(FIRST + 6, FIRST + 14)


def attends(width: int) -> bool:
    """Whether heads of that width can be attended to."""
    return width % STRIDE == 0


def attention(
    queries: int,
    keys: int,
    width: int,
    scaling: float,
    norms: tuple[Tensor, Tensor, float] | None = None,
) -> Task:
    """Of one position in each row to all positions in the cache: heads [rows, queries + 2 keys,
    width], not turned yet, give [rows, queries, width].

    `queries` and `keys` are numbers of heads; `norms` are the weights [width] of RMS norms of
    queries and keys, and ε.
    """
    constants = torch.tensor([scaling, norms[2] if norms else 0], dtype=torch.float64)
    weights = [norm.float() for norm in norms[:2]] if norms else [None, None]
    fields = np.zeros(_END, np.int64)
    fields[[KIND, _QUERIES, _KEYS, _WIDTH]] = ATTENTION, queries, keys, width
    fields[[_SCALING, _EPS]] = address(constants), address(constants[1])
    fields[[_QUERY_NORM, _KEY_NORM]] = [address(weight) for weight in weights]
    return Task(fields, (constants, weights))


def attention_room(width: int, length: int) -> int:
    """Numbers that a thread needs: queries, what they mix, a head and scores."""
    return MOST * (2 * width + length + 1) + width


@compiled(inline="always")
def attend(task, scratch, half):
    """This thread's share of the rows' key heads."""
    thread, count = np.int64(threads.number()), np.int64(threads.count())
    both = task[ROWS] * task[_KEYS]
    for number in range(both * thread // count, both * (thread + 1) // count):
        _attend_head(task, number // task[_KEYS], number % task[_KEYS], scratch, half)


@compiled(inline="always")
def _attend_head(task, row, key_head, scratch, half):
    """The queries of a row that share a key head."""
    width, length = task[_WIDTH], task[LENGTH]
    size = 2 if half else 4
    head_bytes, middle = width * size, width // 2
    shared = task[_QUERIES] // task[_KEYS]
    inputs = task[INPUT] + row * (task[_QUERIES] + 2 * task[_KEYS]) * head_bytes
    held = (row * task[_KEYS] + key_head) * task[ROOM] * head_bytes
    keys, values = task[KEY_ROOM] + held, task[VALUE_ROOM] + held
    stride = length + 1
    queries, mixed, spare = scratch, scratch + MOST * width * 4, scratch + 2 * MOST * width * 4
    scores = spare + width * 4
    turned = at(spare, np.float32)

    key = inputs + (task[_QUERIES] + key_head) * head_bytes
    value, last = key + task[_KEYS] * head_bytes, (length - 1) * head_bytes
    _turn(task, key, task[_KEY_NORM], spare, half)
    for i in range(width):
        _write(keys + last, i, turned[i], half)
        _write(values + last, i, read(value, i, half), half)

    scaling = np.float32(at(task[_SCALING], np.float64)[0])
    for begin in range(0, shared, MOST):
        count = min(MOST, shared - begin)
        first_head = key_head * shared + begin
        for query in range(count):
            head = inputs + (first_head + query) * head_bytes
            _turn(task, head, task[_QUERY_NORM], spare, half)
            out = at(queries + query * width * 4, np.float32)
            for i in range(width):
                # With bfloat16 keys the even columns come first.
                place = i // 2 + i % 2 * middle if half else i
                out[place] = turned[i] * scaling
        for position in range(0, length, 2):
            first = keys + position * head_bytes
            second = keys + min(position + 1, length - 1) * head_bytes
            if half:
                half_dots(count, queries, first, second, width, scores + position * 4, stride)
            else:
                float_dots(count, queries, first, second, width, scores + position * 4, stride)
        for query in range(count):
            _softmax(at(scores + query * stride * 4, np.float32), length)
        if half:
            half_mix(count, scores, stride, values, length, width, mixed)
        else:
            float_mix(count, scores, stride, values, length, width, mixed)
        for query in range(count):
            out = task[OUTPUT] + (row * task[_QUERIES] + first_head + query) * head_bytes
            of_query = at(mixed + query * width * 4, np.float32)
            for i in range(width):
                _write(out, i, of_query[i // 2 + i % 2 * middle if half else i], half)


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


@compiled(forceinline=True)
def _softmax(scores, count):
    """In their place."""
    highest = _highest(scores, count)
    for i in range(count):
        scores[i] = exp(scores[i] - highest)
    by = np.float32(1) / _sum(scores, count)
    for i in range(count):
        scores[i] *= by


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
