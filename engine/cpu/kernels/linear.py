"""The product of a few rows with linear layers' weights, as they are stored, on a CPU.

A step reads each weight once and does next to nothing with it, so what counts is that memory never
waits. What surrounds a product in a residual stream (the norm or the gate before it, the
addition after it) takes longer as operations of its own than as part of it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..runtime.instruction import (
    FIRST,
    INPUT,
    KIND,
    LINEAR,
    OUTPUT,
    ROWS,
    Instruction,
    address,
    is_readable,
)
from .packing import PackedWeight
from .scalars import REORDERED, at, compiled, read, round_all, silu, thread_share
from .simd import (
    COLUMN_MULTIPLE,
    ROWS_AT_ONCE,
    bfloat16_dots,
    float16_dots,
    float_dots,
    scaled_dots,
    split_bfloat16_dots,
)

MAX_ROWS = 24
"""The most rows of a product; more have enough arithmetic to be multiplied as torch does."""
OUTPUT_BLOCK = 64
"""Outputs of each row that are finished together; even."""

COLUMNS, OUTPUTS, RESIDUAL, _CLOSED, _NORM, _EPS, _GATED, _LAYERS, _LAYER = range(FIRST, FIRST + 9)
_WEIGHT, _FORM, _ROW_BYTES, _BIAS, _SIZE, _NEXT = range(6)
"""Offsets of a layer's fields; the first layer's begin at `_LAYER`."""
_PLAIN, _BFLOAT16, _FLOAT16, _SCALED = range(4)
"""Storage forms of weights: in the rows' dtype, or packed."""
_FORMS = {torch.bfloat16: _BFLOAT16, torch.float16: _FLOAT16, torch.uint8: _SCALED}


def can_multiply(weight: Tensor) -> bool:
    """Whether weights [outputs, inputs] can be read as they are stored."""
    return is_readable(weight) and weight.shape[1] % COLUMN_MULTIPLE == 0


def linear_instruction(
    layers: Sequence[tuple[Tensor | PackedWeight, Tensor | None]],
    norm: tuple[Tensor, float] | None = None,
    closed: Tensor | None = None,
    gated: bool = False,
) -> Instruction:
    """Write xWᵀ + b, side by side, of linear layers that read the same rows [rows, inputs].

    `layers` are weights [outputs, inputs] in the rows' dtype and biases [outputs]. `norm` is the
    weight [inputs] and ε of an RMS norm of what they read; `gated` layers read silu(a)b of inputs a
    and b that are stored side by side. Outputs are 0 in rows that are `closed`, bool [rows], and
    added to the `RESIDUAL`.
    """
    first, _ = layers[0]
    biases = [None if bias is None else bias.float() for _, bias in layers]
    norm_weight = eps = None
    if norm:
        norm_weight = norm[0].float()
        if first.dtype == torch.bfloat16:
            norm_weight = torch.cat((norm_weight[::2], norm_weight[1::2]))
        eps = torch.tensor(norm[1], dtype=torch.float64)
    fields = np.zeros(_LAYER + _NEXT * len(layers), np.int64)
    fields[[KIND, COLUMNS, _GATED, _LAYERS]] = LINEAR, first.shape[1], gated, len(layers)
    fields[OUTPUTS] = sum(weight.shape[0] for weight, _ in layers)
    fields[[_CLOSED, _NORM, _EPS]] = address(closed), address(norm_weight), address(eps)
    fields[_LAYER:] = [
        value
        for (weight, _), bias in zip(layers, biases, strict=True)
        for value in (*_form(weight), address(bias), weight.shape[0])
    ]
    return Instruction(fields, (layers, biases, norm_weight, eps, closed))


def _form(weight: Tensor | PackedWeight) -> tuple[int, int, int]:
    if isinstance(weight, Tensor):
        return weight.data_ptr(), _PLAIN, weight[0].nbytes
    data = weight.data
    return data.data_ptr(), _FORMS[data.dtype], data[0].nbytes


def linear_scratch_size(rows: int, columns: int) -> int:
    """float32 numbers that a thread needs: inputs, one row more, and sums."""
    return (rows + 1) * columns + rows * OUTPUT_BLOCK


@compiled(inline="always")
def multiply(fields, scratch, is_bfloat16):
    """Write this thread's share of the outputs."""
    rows, columns, outputs = fields[ROWS], fields[COLUMNS], fields[OUTPUTS]
    inputs = _bfloat16_inputs(fields, scratch) if is_bfloat16 else _float32_inputs(fields, scratch)
    sums = scratch + (rows + 1) * columns * 4
    begin, end = thread_share(outputs)
    first_output = 0
    for number in range(fields[_LAYERS]):
        layer = _LAYER + number * _NEXT
        weight, size = fields[layer + _WEIGHT], fields[layer + _SIZE]
        form, row_bytes = fields[layer + _FORM], fields[layer + _ROW_BYTES]
        last = min(end - first_output, size)
        for start in range(max(begin - first_output, 0), last, OUTPUT_BLOCK):
            finished = min(OUTPUT_BLOCK, last - start)
            for i in range(0, finished, 2):
                first = weight + (start + i) * row_bytes
                second = weight + min(start + i + 1, size - 1) * row_bytes
                # Further rows find the weights in the cache.
                for row in range(0, rows, ROWS_AT_ONCE):
                    count = min(ROWS_AT_ONCE, rows - row)
                    x, out = inputs + row * columns * 4, sums + (row * OUTPUT_BLOCK + i) * 4
                    if is_bfloat16:
                        split_bfloat16_dots(count, x, first, second, columns, out, OUTPUT_BLOCK)
                    elif form == _BFLOAT16:
                        bfloat16_dots(count, x, first, second, columns, out, OUTPUT_BLOCK)
                    elif form == _FLOAT16:
                        float16_dots(count, x, first, second, columns, out, OUTPUT_BLOCK)
                    elif form == _SCALED:
                        scaled_dots(count, x, first, second, columns, out, OUTPUT_BLOCK)
                    else:
                        float_dots(count, x, first, second, columns, out, OUTPUT_BLOCK)
            _finish(fields, layer, start, first_output + start, sums, finished, is_bfloat16)
        first_output += size


@compiled(fastmath=REORDERED)
def rms_scale(numbers, count, eps):
    """The factor of an RMS norm: 1 over the root of the mean square."""
    total = np.float32(0)
    for i in range(count):
        total += numbers[i] * numbers[i]
    return np.float32(1) / np.sqrt(total / np.float32(count) + eps)


@compiled()
def _float32_inputs(fields, scratch):
    """The address of the inputs: in the scratch if they are to be normed or gated."""
    rows, columns = fields[ROWS], fields[COLUMNS]
    for row in range(rows):
        out = at(scratch + row * columns * 4, np.float32)
        if fields[_GATED]:
            gate = fields[INPUT] + 2 * row * columns * 4
            gates, ups = at(gate, np.float32), at(gate + columns * 4, np.float32)
            for i in range(columns):
                out[i] = silu(gates[i]) * ups[i]
        elif fields[_NORM]:
            x = at(fields[INPUT] + row * columns * 4, np.float32)
            weight, eps = at(fields[_NORM], np.float32), at(fields[_EPS], np.float64)[0]
            factor = rms_scale(x, columns, np.float32(eps))
            for i in range(columns):
                out[i] = weight[i] * (x[i] * factor)
        else:
            return fields[INPUT]
    return scratch


@compiled()
def _bfloat16_inputs(fields, scratch):
    """The address of the inputs, even columns first, normed or gated if they are to be; each
    operation is rounded as the stock ones."""
    rows, columns = fields[ROWS], fields[COLUMNS]
    spare = scratch + rows * columns * 4
    for row in range(rows):
        out = scratch + row * columns * 4
        numbers = at(out, np.float32)
        if fields[_GATED]:
            gate = fields[INPUT] + 2 * row * columns * 2
            _widen(gate, out, columns)
            for i in range(columns):
                numbers[i] = silu(numbers[i])
            round_all(out, columns)
            _widen(gate + columns * 2, spare, columns)
            ups = at(spare, np.float32)
            for i in range(columns):
                numbers[i] *= ups[i]
            round_all(out, columns)
            continue
        _widen(fields[INPUT] + row * columns * 2, out, columns)
        if fields[_NORM]:
            weight, eps = at(fields[_NORM], np.float32), at(fields[_EPS], np.float64)[0]
            factor = rms_scale(numbers, columns, np.float32(eps))
            for i in range(columns):
                numbers[i] *= factor
            round_all(out, columns)
            # The norm's weights are float32, even columns first too.
            for i in range(columns):
                numbers[i] *= weight[i]
            round_all(out, columns)
    return scratch


@compiled(forceinline=True)
def _widen(source, out, count):
    """Write bfloat16 numbers as float32, even columns first."""
    words = at(source, np.uint32)
    evens, odds = at(out, np.uint32), at(out + count // 2 * 4, np.uint32)
    for i in range(count // 2):
        evens[i] = words[i] << np.uint32(16)
        odds[i] = words[i] & np.uint32(0xFFFF0000)


@compiled(forceinline=True)
def _finish(fields, layer, begin, first_output, sums, count, is_bfloat16):
    """Write `count` outputs of each row: sums [rows, BLOCK] and the layer's bias, 0 in a closed
    row, added to the residual."""
    bias, closed, residual = fields[layer + _BIAS], fields[_CLOSED], fields[RESIDUAL]
    for row in range(fields[ROWS]):
        row_sums = sums + row * OUTPUT_BLOCK * 4
        numbers, words = at(row_sums, np.float32), at(row_sums, np.uint32)
        if bias:
            added = at(bias + begin * 4, np.float32)
            for i in range(count):
                numbers[i] += added[i]
        if closed and at(closed, np.uint8)[row]:
            for i in range(count):
                numbers[i] = np.float32(0)
        output = row * fields[OUTPUTS] + first_output
        if is_bfloat16:
            round_all(row_sums, count)
            if residual:
                for i in range(count):
                    numbers[i] += read(residual + output * 2, i, is_bfloat16)
                round_all(row_sums, count)
            out = at(fields[OUTPUT] + output * 2, np.uint16)
            for i in range(count):
                out[i] = np.uint16(words[i] >> np.uint32(16))
        else:
            written = at(fields[OUTPUT] + output * 4, np.float32)
            if residual:
                before = at(residual + output * 4, np.float32)
                for i in range(count):
                    written[i] = before[i] + numbers[i]
            else:
                for i in range(count):
                    written[i] = numbers[i]
