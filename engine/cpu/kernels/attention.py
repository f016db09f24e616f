"""Attention of one position over a cache, on a CPU: rotate, write to the cache, attend, join.

Each key and value is read once, by one thread, for all queries that share it. Threads take parts of
the positions, whose results are joined: a few heads would keep few threads busy. A variant's keys
and values equal the baseline's up to the first layer that it drops, as far as the same tokens were
read: a prefix that rows share is read from one of them, and the others find it in the cache.
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
    ROTATE,
    ROWS,
    Instruction,
    address,
)
from .linear import rms_scale
from .scalars import (
    REORDERED,
    at,
    bits_of,
    compiled,
    exp,
    float_from_bits,
    maximum,
    read,
    round_bits,
    thread_share,
)
from .simd import (
    COLUMN_MULTIPLE,
    POSITIONS_AT_ONCE,
    ROWS_AT_ONCE,
    float_mix,
    float_score,
    split_bfloat16_mix,
    split_bfloat16_score,
)

PART = 128
"""Positions in a part, which one thread attends to at a time. Results depend on it, but not on the
number of threads."""

LENGTH, CAPACITY, KEY_CACHE, VALUE_CACHE, SHARED_PREFIXES, COS, SIN, PART_RESULTS, READ_COUNTS = (
    range(FIRST, FIRST + 9)
)
"""Indices of fields, the same in all three instructions: the number of positions, the new one too;
the caches' capacity; addresses of the caches [rows, keys, capacity, width]; of the prefixes that
rows share, as `kv_cache.GrowingLayer.extend` returns them; of cosine and sine of the rotary
embedding, float32 [width], the first half of the sine with the other sign; of `part_results_size`
float32 numbers; of int64 [threads], to which the positions that each thread reads are added, those
of a shared prefix once."""
_QUERIES, _KEYS, _WIDTH, _CLOSED, _SCALING, _QUERY_NORM, _KEY_NORM, _EPS, _END = range(
    FIRST + 9, FIRST + 18
)


def supports_head_width(width: int) -> bool:
    """Whether the kernels can read heads of a width."""
    return width % COLUMN_MULTIPLE == 0


def attention_instructions(
    queries: int,
    keys: int,
    width: int,
    scaling: float,
    norms: tuple[Tensor, Tensor, float] | None = None,
    closed: Tensor | None = None,
) -> list[Instruction]:
    """Attend from one position in each row to all positions in its cache: three instructions.

    The first reads heads [rows, queries + 2 keys, width], not rotated yet; the last writes [rows,
    queries, width]. `queries` and `keys` are numbers of heads; `norms` are the weights [width] of
    RMS norms of queries and keys, and ε. Rows that are `closed`, bool [rows], attend to nothing,
    which gives 0; their keys and values are written too.
    """
    constants = torch.tensor([scaling, norms[2] if norms else 0], dtype=torch.float64)
    weights = [norm.float() for norm in norms[:2]] if norms else [None, None]
    instructions = []
    for kind in (ROTATE, ATTENTION, JOIN):
        fields = np.zeros(_END, np.int64)
        fields[[KIND, _QUERIES, _KEYS, _WIDTH]] = kind, queries, keys, width
        fields[[_SCALING, _EPS]] = address(constants), address(constants[1])
        fields[[_QUERY_NORM, _KEY_NORM]] = [address(weight) for weight in weights]
        fields[_CLOSED] = address(closed)
        instructions.append(Instruction(fields, (constants, weights, closed)))
    return instructions


def attention_scratch_size(width: int) -> int:
    """float32 numbers that a thread needs: scores and a head."""
    return ROWS_AT_ONCE * (PART + POSITIONS_AT_ONCE) + width


def part_results_size(rows: int, queries: int, width: int, length: int) -> int:
    """float32 numbers between the instructions: each query, rotated; and for each part its mix of
    values, its highest score and its sum of exponentials."""
    return rows * queries * (width + -(-length // PART) * (width + 2))


@compiled()
def rotate(fields, scratch, is_bfloat16):
    """Rotate this thread's share of the queries, to the part results, and of the keys, which are
    written to the cache with their values."""
    width, queries, keys = fields[_WIDTH], fields[_QUERIES], fields[_KEYS]
    head_bytes, middle = width * (2 if is_bfloat16 else 4), width // 2
    heads, rotated = queries + keys, at(scratch, np.float32)
    scaling = np.float32(at(fields[_SCALING], np.float64)[0])
    begin, end = thread_share(fields[ROWS] * heads)
    for number in range(begin, end):
        row, head = number // heads, number % heads
        source = fields[INPUT] + (row * (heads + keys) + head) * head_bytes
        if head < queries:
            _rotate_head(fields, source, fields[_QUERY_NORM], scratch, is_bfloat16)
            out = at(fields[PART_RESULTS] + (row * queries + head) * width * 4, np.float32)
            for i in range(width):
                # With bfloat16 keys the even columns come first.
                out[i // 2 + i % 2 * middle if is_bfloat16 else i] = rotated[i] * scaling
            continue
        key_head = head - queries
        _extend_shared_prefix(fields, row, key_head, is_bfloat16)
        _rotate_head(fields, source, fields[_KEY_NORM], scratch, is_bfloat16)
        offset = ((row * keys + key_head) * fields[CAPACITY] + fields[LENGTH] - 1) * head_bytes
        values = source + keys * head_bytes
        for i in range(width):
            _store(fields[KEY_CACHE] + offset, i, rotated[i], is_bfloat16)
            _store(fields[VALUE_CACHE] + offset, i, read(values, i, is_bfloat16), is_bfloat16)


@compiled(inline="always")
def attend(fields, scratch, is_bfloat16):
    """Attend to this thread's share of the parts of the rows' key heads."""
    parts = (fields[LENGTH] + PART - 1) // PART
    rows = fields[ROWS]
    read_count = 0
    begin, end = thread_share(rows * fields[_KEYS] * parts)
    for number in range(begin, end):
        # Row after row: what they share is in the processor's cache then.
        row, key_head, part = number % rows, number // rows // parts, number // rows % parts
        if _is_closed(fields, row):
            continue
        positions = min(PART, fields[LENGTH] - part * PART)
        last = part * PART + positions
        source_row = _source_row(fields, row, key_head, last)
        if _is_first_reader(fields, row, source_row, key_head, last):
            read_count += positions
        _attend_part(fields, row, source_row, key_head, part, positions, scratch, is_bfloat16)
    at(fields[READ_COUNTS], np.int64)[np.int64(openmp.thread_index())] += read_count


@compiled(inline="always")
def _attend_part(fields, row, source_row, key_head, part, positions, scratch, is_bfloat16):
    """Attend from a row's queries that share a key head to positions in the source row's cache."""
    width, keys, stride = fields[_WIDTH], fields[_KEYS], PART + POSITIONS_AT_ONCE
    group_size, parts = fields[_QUERIES] // keys, (fields[LENGTH] + PART - 1) // PART
    offset = (source_row * keys + key_head) * fields[CAPACITY] + part * PART
    offset *= width * (2 if is_bfloat16 else 4)
    part_keys, part_values = fields[KEY_CACHE] + offset, fields[VALUE_CACHE] + offset
    heads = row * keys + key_head
    queries = fields[PART_RESULTS] + heads * group_size * width * 4
    mixed = fields[PART_RESULTS] + fields[ROWS] * fields[_QUERIES] * width * 4
    mixed += (heads * parts + part) * group_size * (width + 2) * 4
    sums = at(mixed + group_size * width * 4, np.float32)
    for first in range(0, group_size, ROWS_AT_ONCE):
        count = min(ROWS_AT_ONCE, group_size - first)
        x, out = queries + first * width * 4, mixed + first * width * 4
        if is_bfloat16:
            split_bfloat16_score(count, x, part_keys, positions, width, scratch, stride)
        else:
            float_score(count, x, part_keys, positions, width, scratch, stride)
        for query in range(count):
            scores = at(scratch + query * stride * 4, np.float32)
            highest = maximum(scratch + query * stride * 4, positions, False)
            for i in range(positions):
                scores[i] = exp(scores[i] - highest)
            index = 2 * (first + query)
            sums[index], sums[index + 1] = highest, _sum(scores, positions)
        if is_bfloat16:
            split_bfloat16_mix(count, scratch, stride, part_values, positions, width, out)
        else:
            float_mix(count, scratch, stride, part_values, positions, width, out)


@compiled(forceinline=True)
def _is_closed(fields, row):
    return fields[_CLOSED] and at(fields[_CLOSED], np.uint8)[row]


@compiled(forceinline=True)
def _source_row(fields, row, key_head, end):
    """The first row whose keys and values equal a row's up to a position."""
    prefixes, stride = at(fields[SHARED_PREFIXES], np.int64), 1 + fields[_KEYS]
    while prefixes[row * stride + 1 + key_head] >= end:
        row = prefixes[row * stride]
    return row


@compiled(forceinline=True)
def _is_first_reader(fields, row, source_row, key_head, end):
    """Whether no earlier row reads the same positions; a closed source row does not."""
    for earlier in range(source_row, row):
        reads = not _is_closed(fields, earlier)
        if reads and _source_row(fields, earlier, key_head, end) == source_row:
            return False
    return True


@compiled(forceinline=True)
def _extend_shared_prefix(fields, row, key_head, is_bfloat16):
    """Lengthen the prefix that a row shares if its new key and value are equal too."""
    prefix = at(fields[SHARED_PREFIXES] + row * (1 + fields[_KEYS]) * 8, np.int64)
    source_row, index, length = prefix[0], 1 + key_head, fields[LENGTH] - 1
    # A crop shortens it.
    prefix[index] = min(prefix[index], length)
    if source_row == row or prefix[index] < length:
        return
    size = fields[_WIDTH] * (2 if is_bfloat16 else 4)
    row_bytes = (fields[_QUERIES] + 2 * fields[_KEYS]) * size
    for head in (fields[_QUERIES] + key_head, fields[_QUERIES] + fields[_KEYS] + key_head):
        a = at(fields[INPUT] + row * row_bytes + head * size, np.int64)
        b = at(fields[INPUT] + source_row * row_bytes + head * size, np.int64)
        for i in range(size // 8):
            if a[i] != b[i]:
                return
    prefix[index] += 1


@compiled()
def join(fields, scratch, is_bfloat16):
    """Join the parts' results for this thread's share of the queries."""
    width, queries = fields[_WIDTH], fields[ROWS] * fields[_QUERIES]
    group_size, middle = fields[_QUERIES] // fields[_KEYS], width // 2
    parts = (fields[LENGTH] + PART - 1) // PART
    numbers, joined = at(fields[PART_RESULTS], np.float32), at(scratch, np.float32)
    stride = group_size * (width + 2)
    begin, end = thread_share(queries)
    for query in range(begin, end):
        out = fields[OUTPUT] + query * width * (2 if is_bfloat16 else 4)
        if _is_closed(fields, query // fields[_QUERIES]):
            for i in range(width):
                _store(out, i, np.float32(0), is_bfloat16)
            continue
        first = queries * width + query // group_size * parts * stride
        mixed = first + query % group_size * width
        sums = first + group_size * width + query % group_size * 2
        highest, total = np.float32(-np.inf), np.float32(0)
        for part in range(parts):
            highest = max(highest, numbers[sums + part * stride])
        for i in range(width):
            joined[i] = 0
        for part in range(parts):
            weight = exp(numbers[sums + part * stride] - highest)
            total += weight * numbers[sums + part * stride + 1]
            for i in range(width):
                joined[i] += weight * numbers[mixed + part * stride + i]
        for i in range(width):
            column = i // 2 + i % 2 * middle if is_bfloat16 else i
            _store(out, i, joined[column] / total, is_bfloat16)


@compiled(forceinline=True)
def _rotate_head(fields, head, norm, out, is_bfloat16):
    """Write a head [width], normed if there is a norm, after the rotary embedding; each operation
    is rounded as the stock ones."""
    width = fields[_WIDTH]
    middle = width // 2
    cos, sin = at(fields[COS], np.float32), at(fields[SIN], np.float32)
    numbers = at(out, np.float32)
    for i in range(width):
        numbers[i] = read(head, i, is_bfloat16)
    if norm:
        weight, eps = at(norm, np.float32), np.float32(at(fields[_EPS], np.float64)[0])
        factor = rms_scale(numbers, width, eps)
        for i in range(width):
            numbers[i] = _round(weight[i] * _round(numbers[i] * factor, is_bfloat16), is_bfloat16)
    for i in range(middle):
        j = i + middle
        x, y = numbers[i], numbers[j]
        a, b = _round(x * cos[i], is_bfloat16), _round(y * sin[i], is_bfloat16)
        c, d = _round(y * cos[j], is_bfloat16), _round(x * sin[j], is_bfloat16)
        numbers[i], numbers[j] = _round(a + b, is_bfloat16), _round(c + d, is_bfloat16)


@compiled(fastmath=REORDERED)
def _sum(numbers, count):
    total = np.float32(0)
    for i in range(count):
        total += numbers[i]
    return total


@compiled(forceinline=True)
def _store(address, i, number, is_bfloat16):
    if is_bfloat16:
        at(address, np.uint16)[i] = np.uint16(round_bits(bits_of(number)) >> np.uint32(16))
    else:
        at(address, np.float32)[i] = number


@compiled(forceinline=True)
def _round(number, is_bfloat16):
    return float_from_bits(np.uint32(round_bits(bits_of(number)))) if is_bfloat16 else number
