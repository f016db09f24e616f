"""A look at all logits, on a CPU: the highest, and sums of them and their softmax in float64."""

import numpy as np
import torch

from ...logit_sums import LogitSums
from ..runtime import openmp
from ..runtime.instruction import (
    FIRST,
    HIGHEST,
    INPUT,
    KIND,
    MAXIMA,
    OUTPUT,
    ROWS,
    SUMS,
    Task,
    address,
)
from .scalars import REORDERED, at, compiled, exp64, maximum, read

PART = 1024
"""Tokens that one thread looks at at a time: what is made of them stays at hand. Sums are of such
parts, so that they do not depend on the number of threads."""
BLOCK = 128
"""Tokens whose highest logit is found first: most blocks have none of the highest of all."""
_SUMS = len(LogitSums._fields)
VALUES, _VOCABULARY, _MAXIMA, _TEMPERATURE, _WANTED, _END = range(FIRST, FIRST + 6)


def look(lanes: int, vocabulary: int, k: int, temperature: float) -> list[Task]:
    """Three tasks, whose `INPUT` is z [lanes, vocabulary], and `VALUES` the highest of it, float32
    [lanes, k]. The second one writes those and their tokens, int64 [lanes, k], equal ones in the
    order of their tokens; the third one `LogitSums`, float64 [parts, lanes, fields], of parts of
    the vocabulary."""
    maxima = torch.empty(lanes, -(-vocabulary // BLOCK), dtype=torch.float32)
    divisor = torch.tensor([temperature], dtype=torch.float64)
    fields = np.zeros((3, _END), np.int64)
    fields[:, KIND] = MAXIMA, HIGHEST, SUMS
    fields[:, [ROWS, _VOCABULARY, _WANTED]] = lanes, vocabulary, k
    fields[:, [_MAXIMA, _TEMPERATURE]] = address(maxima), address(divisor)
    return [Task(of_task, (maxima, divisor)) for of_task in fields]


def parts(vocabulary: int) -> int:
    return -(-vocabulary // PART)


LOOK_ROOM = 2 * 2 * 2 * PART
"""Numbers of four bytes that a thread needs: of two lanes' part z and e, in float64."""


@compiled(forceinline=True)
def _higher(one, other):
    """NaN is the highest, as to torch."""
    return one > other or (one != one and other == other)


@compiled()
def find_maxima(task, half):
    """Of this thread's share of the blocks, the last of which may be smaller."""
    thread, count = np.int64(openmp.number()), np.int64(openmp.count())
    lanes, vocabulary = task[ROWS], task[_VOCABULARY]
    blocks = (vocabulary + BLOCK - 1) // BLOCK
    maxima = at(task[_MAXIMA], np.float32)
    for lane in range(lanes):
        for block in range(blocks * thread // count, blocks * (thread + 1) // count):
            begin = block * BLOCK
            tokens = min(BLOCK, vocabulary - begin)
            first = task[INPUT] + (lane * vocabulary + begin) * (2 if half else 4)
            maxima[lane * blocks + block] = maximum(first, tokens, half)


@compiled()
def find_highest(task, half):
    """This thread's share of the lanes."""
    thread, count = np.int64(openmp.number()), np.int64(openmp.count())
    lanes, vocabulary, wanted = task[ROWS], task[_VOCABULARY], task[_WANTED]
    blocks = (vocabulary + BLOCK - 1) // BLOCK
    for lane in range(lanes * thread // count, lanes * (thread + 1) // count):
        maxima = at(task[_MAXIMA] + lane * blocks * 4, np.float32)
        values = at(task[VALUES] + lane * wanted * 4, np.float32)
        tokens = at(task[OUTPUT] + lane * wanted * 8, np.int64)
        logits = task[INPUT] + lane * vocabulary * (2 if half else 4)
        found = 0
        for block in range(blocks):
            if found == wanted and not _higher(maxima[block], values[wanted - 1]):
                continue
            for token in range(block * BLOCK, min((block + 1) * BLOCK, vocabulary)):
                z = read(logits, token, half)
                if found == wanted and not _higher(z, values[wanted - 1]):
                    continue
                place = min(found, wanted - 1)
                while place > 0 and _higher(z, values[place - 1]):
                    values[place], tokens[place] = values[place - 1], tokens[place - 1]
                    place -= 1
                values[place], tokens[place] = z, token
                found = min(found + 1, wanted)


@compiled()
def add_up(task, scratch, half):
    """This thread's share of the parts."""
    thread, count = np.int64(openmp.number()), np.int64(openmp.count())
    lanes, vocabulary = task[ROWS], task[_VOCABULARY]
    parts = (vocabulary + PART - 1) // PART
    # Dividing takes as long as the rest.
    inverse = 1 / at(task[_TEMPERATURE], np.float64)[0]
    x, e_x = at(scratch, np.float64), at(scratch + PART * 8, np.float64)
    for part in range(parts * thread // count, parts * (thread + 1) // count):
        begin = part * PART
        tokens = min(PART, vocabulary - begin)
        for lane in range(lanes):
            # Lane 0's stay for the others, which follow each other in one place.
            place = scratch + 2 * min(lane, 1) * PART * 8
            z, e = at(place, np.float64), at(place + PART * 8, np.float64)
            logits = task[INPUT] + (lane * vocabulary + begin) * (2 if half else 4)
            highest = np.float64(at(task[VALUES], np.float32)[lane * task[_WANTED]])
            for i in range(tokens):
                z[i] = np.float64(read(logits, i, half))
                e[i] = exp64((z[i] - highest) * inverse)
            out = at(task[OUTPUT] + (part * lanes + lane) * _SUMS * 8, np.float64)
            _add_up_lane(z, e, x, e_x, tokens, out)


@compiled(fastmath=REORDERED)
def _add_up_lane(y, e, x, e0, tokens, out):
    """Write `LogitSums` of a part of one lane's vocabulary."""
    e_sum = e_y = e_d = e_e0 = e_e = e0_d = e0_d_d = e0_e0_d = e0_e0_d_d = 0.0
    y_sum = x_x = x_d = d_d = 0.0
    for i in range(tokens):
        # Minus infinity that no probability falls on has no part in a mean.
        has_e, has_e0 = e[i] != 0, e0[i] != 0
        d = y[i] - x[i]
        e_sum += e[i]
        e_y += e[i] * (y[i] if has_e else 0)
        e_d += e[i] * (d if has_e else 0)
        e_e0 += e[i] * e0[i]
        e_e += e[i] * e[i]
        y_sum += y[i]
        x_x += x[i] * x[i]
        x_d += x[i] * d
        d_d += d * d
        d = d if has_e0 else 0
        weighted_d = e0[i] * d
        e0_d += weighted_d
        e0_d_d += weighted_d * d
        e0_e0_d += weighted_d * e0[i]
        e0_e0_d_d += weighted_d * weighted_d
    sums = LogitSums(
        e=e_sum,
        e_y=e_y,
        e_d=e_d,
        e_e0=e_e0,
        e_e=e_e,
        e0_d=e0_d,
        e0_d_d=e0_d_d,
        e0_e0_d=e0_e0_d,
        e0_e0_d_d=e0_e0_d_d,
        y=y_sum,
        x_x=x_x,
        x_d=x_d,
        d_d=d_d,
    )
    for i in range(len(sums)):
        out[i] = sums[i]
