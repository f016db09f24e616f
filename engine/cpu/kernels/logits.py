"""Reduction of all logits on a CPU: top-k, and sums of them and their softmax in float64."""

import numpy as np
import torch

from ...logit_sums import LogitSums
from ..runtime.instruction import (
    BLOCK_MAXIMA,
    FIRST,
    INPUT,
    KIND,
    LOGIT_SUMS,
    OUTPUT,
    ROWS,
    TOP_K,
    Instruction,
    address,
)
from .scalars import REORDERED, at, compiled, exp64, maximum, read, thread_share

PART = 1024
"""Tokens in a part of the vocabulary, which one thread adds up from its cache. Sums are of such
parts, so that they do not depend on the number of threads."""
BLOCK = 128
"""Tokens in a block, whose maximum is found first: most blocks have none of the top k."""
_SUMS = len(LogitSums._fields)
TOP_VALUES, _VOCABULARY, _MAXIMA, _TEMPERATURE, _K, _END = range(FIRST, FIRST + 6)


def logits_instructions(
    lanes: int, vocabulary: int, k: int, temperature: float
) -> list[Instruction]:
    """Three instructions that read z [lanes, vocabulary] as `INPUT` and share `TOP_VALUES`.

    `TOP_VALUES` is where the second one writes the k highest logits, float32 [lanes, k], equal ones
    in the order of their tokens; its `OUTPUT` is their tokens, int64 [lanes, k]. The third one's is
    `LogitSums`, float64 [parts, lanes, fields], of parts of the vocabulary.
    """
    maxima = torch.empty(lanes, -(-vocabulary // BLOCK), dtype=torch.float32)
    divisor = torch.tensor([temperature], dtype=torch.float64)
    fields = np.zeros((3, _END), np.int64)
    fields[:, KIND] = BLOCK_MAXIMA, TOP_K, LOGIT_SUMS
    fields[:, [ROWS, _VOCABULARY, _K]] = lanes, vocabulary, k
    fields[:, [_MAXIMA, _TEMPERATURE]] = address(maxima), address(divisor)
    return [Instruction(row, (maxima, divisor)) for row in fields]


def part_count(vocabulary: int) -> int:
    """Number of parts of the vocabulary."""
    return -(-vocabulary // PART)


LOGITS_SCRATCH_SIZE = 2 * 2 * 2 * PART
"""float32 numbers that a thread needs: a part's z and e of two lanes, in float64."""


@compiled(forceinline=True)
def _is_higher(a, b):
    """Whether a is higher than b; NaN is higher than any number, as in torch."""
    return a > b or (a != a and b == b)


@compiled()
def find_block_maxima(fields, is_bfloat16):
    """Write the maxima of this thread's share of the blocks; the last block may be smaller."""
    lanes, vocabulary = fields[ROWS], fields[_VOCABULARY]
    blocks = (vocabulary + BLOCK - 1) // BLOCK
    maxima = at(fields[_MAXIMA], np.float32)
    begin, end = thread_share(blocks)
    for lane in range(lanes):
        for block in range(begin, end):
            first_token = block * BLOCK
            tokens = min(BLOCK, vocabulary - first_token)
            first = fields[INPUT] + (lane * vocabulary + first_token) * (2 if is_bfloat16 else 4)
            maxima[lane * blocks + block] = maximum(first, tokens, is_bfloat16)


@compiled()
def find_top_k(fields, is_bfloat16):
    """Write the top k of this thread's share of the lanes."""
    lanes, vocabulary, k = fields[ROWS], fields[_VOCABULARY], fields[_K]
    blocks = (vocabulary + BLOCK - 1) // BLOCK
    begin, end = thread_share(lanes)
    for lane in range(begin, end):
        maxima = at(fields[_MAXIMA] + lane * blocks * 4, np.float32)
        values = at(fields[TOP_VALUES] + lane * k * 4, np.float32)
        tokens = at(fields[OUTPUT] + lane * k * 8, np.int64)
        logits = fields[INPUT] + lane * vocabulary * (2 if is_bfloat16 else 4)
        count = 0
        for block in range(blocks):
            if count == k and not _is_higher(maxima[block], values[k - 1]):
                continue
            for token in range(block * BLOCK, min((block + 1) * BLOCK, vocabulary)):
                z = read(logits, token, is_bfloat16)
                if count == k and not _is_higher(z, values[k - 1]):
                    continue
                rank = min(count, k - 1)
                while rank > 0 and _is_higher(z, values[rank - 1]):
                    values[rank], tokens[rank] = values[rank - 1], tokens[rank - 1]
                    rank -= 1
                values[rank], tokens[rank] = z, token
                count = min(count + 1, k)


@compiled()
def add_logit_sums(fields, scratch, is_bfloat16):
    """Write `LogitSums` of this thread's share of the parts."""
    lanes, vocabulary = fields[ROWS], fields[_VOCABULARY]
    part_count = (vocabulary + PART - 1) // PART
    # Divisions would take as long as all the rest.
    inverse = 1 / at(fields[_TEMPERATURE], np.float64)[0]
    x, e_x = at(scratch, np.float64), at(scratch + PART * 8, np.float64)
    begin, end = thread_share(part_count)
    for part in range(begin, end):
        first_token = part * PART
        tokens = min(PART, vocabulary - first_token)
        for lane in range(lanes):
            # Lane 0's z and e stay for the other lanes, which take turns in the second slot.
            slot = scratch + 2 * min(lane, 1) * PART * 8
            z, e = at(slot, np.float64), at(slot + PART * 8, np.float64)
            logits = fields[INPUT] + (lane * vocabulary + first_token) * (2 if is_bfloat16 else 4)
            highest = np.float64(at(fields[TOP_VALUES], np.float32)[lane * fields[_K]])
            for i in range(tokens):
                z[i] = np.float64(read(logits, i, is_bfloat16))
                e[i] = exp64((z[i] - highest) * inverse)
            out = at(fields[OUTPUT] + (part * lanes + lane) * _SUMS * 8, np.float64)
            _add_lane_sums(z, e, x, e_x, tokens, out)


@compiled(fastmath=REORDERED)
def _add_lane_sums(y, e, x, e0, tokens, out):
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
