"""Attention of one position over a cache, on a CPU: turned, written to the cache, and attended.

Each key and value is read once, by one thread, for all queries that share it. Threads take parts of
the positions, which are joined then: a few heads would keep few threads busy. Variants hold the
same as the baseline up to the first layer that they drop, as far as the same tokens were read: what
rows have in common is read from one of them, and stays at hand for the others.
"""

import numpy as np
import torch
from torch import Tensor

from ..runtime import openmp
from ..runtime.instruction import (
    ATTENTION,
    FIRST,
    INPUT,
    JOIN,
    KIND,
    OUTPUT,
    ROWS,
    TURN,
    Task,
    address,
)
from .linear import scale
from .scalars import REORDERED, at, compiled, exp, float_of, maximum, read, rounded, word_of
from .simd import AT_ONCE, MOST, STRIDE, float_mix, float_score, half_mix, half_score

PART = 128
"""Positions that one thread attends to at a time. What comes out depends on it, but not on the
number of threads."""

LENGTH, ROOM, KEY_ROOM, VALUE_ROOM, COMMON, COS, SIN, PARTS, READ = range(FIRST, FIRST + 9)
"""Positions, the new one too, in so much room; the rooms [rows, keys, room, width]; what rows hold
in common, of `kvcache.RoomyLayer.extend`; what heads turn by, float32 [width], the first half of
the sine with the other sign; room for what comes of the parts, `part_sizes` float32 numbers; and of
each thread, int64, what the positions that it reads are added to, of those in common one row's."""
_QUERIES, _KEYS, _WIDTH, _CLOSED, _SCALING, _QUERY_NORM, _KEY_NORM, _EPS, _END = range(
    FIRST + 9, FIRST + 18
)


def attends(width: int) -> bool:
    """Whether heads of that width can be attended to."""
    return width % STRIDE == 0


def attention(
    queries: int,
    keys: int,
    width: int,
    scaling: float,
    norms: tuple[Tensor, Tensor, float] | None = None,
    closed: Tensor | None = None,
) -> list[Task]:
    """Of one position in each row to all positions in the cache: heads [rows, queries + 2 keys,
    width], not turned yet, which the first task reads, give [rows, queries, width], which the last
    one writes. The fields above are to be the same in all three.

    `queries` and `keys` are numbers of heads; `norms` are the weights [width] of RMS norms of
    queries and keys, and ε. Rows that are `closed`, bool [rows], attend to nothing, which gives 0;
    their keys and values are written too.
    """
    constants = torch.tensor([scaling, norms[2] if norms else 0], dtype=torch.float64)
    weights = [norm.float() for norm in norms[:2]] if norms else [None, None]
    tasks = []
    for kind in (TURN, ATTENTION, JOIN):
        fields = np.zeros(_END, np.int64)
        fields[[KIND, _QUERIES, _KEYS, _WIDTH]] = kind, queries, keys, width
        fields[[_SCALING, _EPS]] = address(constants), address(constants[1])
        fields[[_QUERY_NORM, _KEY_NORM]] = [address(weight) for weight in weights]
        fields[_CLOSED] = address(closed)
        tasks.append(Task(fields, (constants, weights, closed)))
    return tasks


def attention_room(width: int) -> int:
    """Numbers that a thread needs: scores and a head."""
    return MOST * (PART + AT_ONCE) + width


def part_sizes(rows: int, queries: int, width: int, length: int) -> int:
    """Of each query itself, turned; and in each part what it mixes, its highest score and the sum
    of exponentials."""
    return rows * queries * (width + -(-length // PART) * (width + 2))


@compiled()
def turn(task, scratch, half):
    """This thread's share of the queries, to the room of the parts, and of the keys and values, to
    the cache."""
    thread, count = np.int64(openmp.number()), np.int64(openmp.count())
    width, queries, keys = task[_WIDTH], task[_QUERIES], task[_KEYS]
    head_bytes, middle = width * (2 if half else 4), width // 2
    heads, turned = queries + keys, at(scratch, np.float32)
    every = task[ROWS] * heads
    scaling = np.float32(at(task[_SCALING], np.float64)[0])
    for number in range(every * thread // count, every * (thread + 1) // count):
        row, head = number // heads, number % heads
        place = task[INPUT] + (row * (heads + keys) + head) * head_bytes
        if head < queries:
            _turn(task, place, task[_QUERY_NORM], scratch, half)
            out = at(task[PARTS] + (row * queries + head) * width * 4, np.float32)
            for i in range(width):
                # With bfloat16 keys the even columns come first.
                out[i // 2 + i % 2 * middle if half else i] = turned[i] * scaling
            continue
        key_head = head - queries
        _compare(task, row, key_head, half)
        _turn(task, place, task[_KEY_NORM], scratch, half)
        held = ((row * keys + key_head) * task[ROOM] + task[LENGTH] - 1) * head_bytes
        for i in range(width):
            _write(task[KEY_ROOM] + held, i, turned[i], half)
            _write(task[VALUE_ROOM] + held, i, read(place + keys * head_bytes, i, half), half)


@compiled(inline="always")
def attend(task, scratch, half):
    """This thread's share of the parts of the rows' key heads."""
    thread, count = np.int64(openmp.number()), np.int64(openmp.count())
    parts = (task[LENGTH] + PART - 1) // PART
    rows = task[ROWS]
    every = rows * task[_KEYS] * parts
    first_hand = 0
    # Rows follow each other: what they hold in common is at hand then.
    for number in range(every * thread // count, every * (thread + 1) // count):
        row, key_head, part = number % rows, number // rows // parts, number // rows % parts
        if _is_closed(task, row):
            continue
        positions = min(PART, task[LENGTH] - part * PART)
        end = part * PART + positions
        holder = _holder(task, row, key_head, end)
        if _is_first(task, row, holder, key_head, end):
            first_hand += positions
        _attend_part(task, row, holder, key_head, part, positions, scratch, half)
    at(task[READ], np.int64)[thread] += first_hand


@compiled(inline="always")
def _attend_part(task, row, holder, key_head, part, positions, scratch, half):
    """The queries of a row that share a key head, to positions that another may hold for it."""
    width, keys, stride = task[_WIDTH], task[_KEYS], PART + AT_ONCE
    shared, parts = task[_QUERIES] // keys, (task[LENGTH] + PART - 1) // PART
    held = (holder * keys + key_head) * task[ROOM] + part * PART
    held *= width * (2 if half else 4)
    heads = row * keys + key_head
    queries = task[PARTS] + heads * shared * width * 4
    mixed = task[PARTS] + task[ROWS] * task[_QUERIES] * width * 4
    mixed += (heads * parts + part) * shared * (width + 2) * 4
    sums = at(mixed + shared * width * 4, np.float32)
    for first in range(0, shared, MOST):
        count = min(MOST, shared - first)
        x, out = queries + first * width * 4, mixed + first * width * 4
        if half:
            half_score(count, x, task[KEY_ROOM] + held, positions, width, scratch, stride)
        else:
            float_score(count, x, task[KEY_ROOM] + held, positions, width, scratch, stride)
        for query in range(count):
            of_query = at(scratch + query * stride * 4, np.float32)
            highest = maximum(scratch + query * stride * 4, positions, False)
            for i in range(positions):
                of_query[i] = exp(of_query[i] - highest)
            place = 2 * (first + query)
            sums[place], sums[place + 1] = highest, _sum(of_query, positions)
        if half:
            half_mix(count, scratch, stride, task[VALUE_ROOM] + held, positions, width, out)
        else:
            float_mix(count, scratch, stride, task[VALUE_ROOM] + held, positions, width, out)


@compiled(forceinline=True)
def _is_closed(task, row):
    return task[_CLOSED] and at(task[_CLOSED], np.uint8)[row]


@compiled(forceinline=True)
def _holder(task, row, key_head, end):
    """The first row whose keys and values are the same up to a position."""
    common, fields = at(task[COMMON], np.int64), 1 + task[_KEYS]
    while common[row * fields + 1 + key_head] >= end:
        row = common[row * fields]
    return row


@compiled(forceinline=True)
def _is_first(task, row, holder, key_head, end):
    """Whether no row before it reads the same; the holder need not, if it is closed."""
    for other in range(holder, row):
        if not _is_closed(task, other) and _holder(task, other, key_head, end) == holder:
            return False
    return True


@compiled(forceinline=True)
def _compare(task, row, key_head, half):
    """What a row holds in common goes on if its new key and value are the same too."""
    common = at(task[COMMON] + row * (1 + task[_KEYS]) * 8, np.int64)
    like, place, before = common[0], 1 + key_head, task[LENGTH] - 1
    # What was cut off is forgotten.
    common[place] = min(common[place], before)
    if like == row or common[place] < before:
        return
    size = task[_WIDTH] * (2 if half else 4)
    row_bytes = (task[_QUERIES] + 2 * task[_KEYS]) * size
    for head in (task[_QUERIES] + key_head, task[_QUERIES] + task[_KEYS] + key_head):
        one = at(task[INPUT] + row * row_bytes + head * size, np.int64)
        other = at(task[INPUT] + like * row_bytes + head * size, np.int64)
        for i in range(size // 8):
            if one[i] != other[i]:
                return
    common[place] += 1


@compiled()
def join(task, scratch, half):
    """The parts of this thread's share of the queries."""
    thread, count = np.int64(openmp.number()), np.int64(openmp.count())
    width, queries = task[_WIDTH], task[ROWS] * task[_QUERIES]
    shared, middle = task[_QUERIES] // task[_KEYS], width // 2
    parts = (task[LENGTH] + PART - 1) // PART
    numbers, joined = at(task[PARTS], np.float32), at(scratch, np.float32)
    for query in range(queries * thread // count, queries * (thread + 1) // count):
        out = task[OUTPUT] + query * width * (2 if half else 4)
        if _is_closed(task, query // task[_QUERIES]):
            for i in range(width):
                _write(out, i, np.float32(0), half)
            continue
        first = queries * width + query // shared * parts * shared * (width + 2)
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
