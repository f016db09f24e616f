"""The product of a few rows with linear layers' weights, as they lie, on a CPU.

A step reads each weight once and does next to nothing with it, so what counts is that memory never
waits. What stands around a product in a residual stream (the norm or the gate before it, the
addition behind it) takes longer as operations of its own than as part of it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..runtime import openmp
from ..runtime.instruction import FIRST, INPUT, KIND, OUTPUT, PRODUCT, ROWS, Task, address, readable
from .packing import Narrow
from .scalars import REORDERED, at, compiled, read, round_all, silu
from .simd import MOST, STRIDE, bfloat16_dots, float16_dots, float_dots, half_dots, scaled_dots

FEW = 24
"""Rows; more have enough arithmetic to be multiplied as torch does."""
BLOCK = 64
"""Outputs of each row that are finished at once; even."""

COLUMNS, OUTPUTS, RESIDUAL, _CLOSED, _NORM, _EPS, _GATED, _LAYERS, _LAYER = range(FIRST, FIRST + 9)
_WEIGHT, _FORM, _ROW_BYTES, _BIAS, _SIZE, _NEXT = range(6)
"""Of each layer, from `_LAYER` on."""
_PLAIN, _BFLOAT16, _FLOAT16, _SCALED = range(4)
"""Forms of weights: in the rows' dtype, or `Narrow`."""
_FORMS = {torch.bfloat16: _BFLOAT16, torch.float16: _FLOAT16, torch.uint8: _SCALED}


def multiplies(weight: Tensor) -> bool:
    """Whether weights [outputs, inputs] can be read as they lie."""
    return readable(weight) and weight.shape[1] % STRIDE == 0


def product(
    layers: Sequence[tuple[Tensor | Narrow, Tensor | None]],
    norm: tuple[Tensor, float] | None = None,
    closed: Tensor | None = None,
    gated: bool = False,
) -> Task:
    """Of rows [rows, inputs] with linear layers that read the same: xWᵀ + b, side by side.

    `layers` are weights [outputs, inputs] in the rows' dtype and biases [outputs]. `norm` is the
    weight [inputs] and ε of an RMS norm of what they read; `gated` layers read silu(a)b of inputs a
    and b that lie side by side. Outputs are 0 in rows that are `closed`, bool [rows], and added to
    the `RESIDUAL`.
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
    fields[[KIND, COLUMNS, _GATED, _LAYERS]] = PRODUCT, first.shape[1], gated, len(layers)
    fields[OUTPUTS] = sum(weight.shape[0] for weight, _ in layers)
    fields[[_CLOSED, _NORM, _EPS]] = address(closed), address(norm_weight), address(eps)
    fields[_LAYER:] = [
        value
        for (weight, _), bias in zip(layers, biases, strict=True)
        for value in (*_form(weight), address(bias), weight.shape[0])
    ]
    return Task(fields, (layers, biases, norm_weight, eps, closed))


def _form(weight: Tensor | Narrow) -> tuple[int, int, int]:
    if isinstance(weight, Tensor):
        return weight.data_ptr(), _PLAIN, weight[0].nbytes
    return weight.held.data_ptr(), _FORMS[weight.held.dtype], weight.held[0].nbytes


def product_room(rows: int, columns: int) -> int:
    """Numbers that a thread needs: inputs, one row more, and sums."""
    return (rows + 1) * columns + rows * BLOCK


@compiled(inline="always")
def multiply(task, scratch, half):
    """This thread's share of the outputs."""
    rows, columns, outputs = task[ROWS], task[COLUMNS], task[OUTPUTS]
    thread, count = np.int64(openmp.number()), np.int64(openmp.count())
    inputs = _half_inputs(task, scratch) if half else _float_inputs(task, scratch)
    sums = scratch + (rows + 1) * columns * 4
    begin, end = outputs * thread // count, outputs * (thread + 1) // count
    before = 0
    for number in range(task[_LAYERS]):
        layer = _LAYER + number * _NEXT
        weight, size = task[layer + _WEIGHT], task[layer + _SIZE]
        form, row_bytes = task[layer + _FORM], task[layer + _ROW_BYTES]
        last = min(end - before, size)
        for start in range(max(begin - before, 0), last, BLOCK):
            finished = min(BLOCK, last - start)
            for i in range(0, finished, 2):
                first = weight + (start + i) * row_bytes
                second = weight + min(start + i + 1, size - 1) * row_bytes
                # The weights of further rows are at hand.
                for row in range(0, rows, MOST):
                    some = min(MOST, rows - row)
                    x, place = inputs + row * columns * 4, sums + (row * BLOCK + i) * 4
                    if half:
                        half_dots(some, x, first, second, columns, place, BLOCK)
                    elif form == _BFLOAT16:
                        bfloat16_dots(some, x, first, second, columns, place, BLOCK)
                    elif form == _FLOAT16:
                        float16_dots(some, x, first, second, columns, place, BLOCK)
                    elif form == _SCALED:
                        scaled_dots(some, x, first, second, columns, place, BLOCK)
                    else:
                        float_dots(some, x, first, second, columns, place, BLOCK)
            _finish(task, layer, start, before + start, sums, finished, half)
        before += size


@compiled(fastmath=REORDERED)
def scale(numbers, count, eps):
    """Of an RMS norm: 1 over the root of the mean square."""
    total = np.float32(0)
    for i in range(count):
        total += numbers[i] * numbers[i]
    return np.float32(1) / np.sqrt(total / np.float32(count) + eps)


@compiled()
def _float_inputs(task, scratch):
    """The address of the inputs: in the scratch if they are to be normed or gated."""
    rows, columns = task[ROWS], task[COLUMNS]
    for row in range(rows):
        out = at(scratch + row * columns * 4, np.float32)
        if task[_GATED]:
            gate = task[INPUT] + 2 * row * columns * 4
            gates, ups = at(gate, np.float32), at(gate + columns * 4, np.float32)
            for i in range(columns):
                out[i] = silu(gates[i]) * ups[i]
        elif task[_NORM]:
            x = at(task[INPUT] + row * columns * 4, np.float32)
            weight, eps = at(task[_NORM], np.float32), at(task[_EPS], np.float64)[0]
            by = scale(x, columns, np.float32(eps))
            for i in range(columns):
                out[i] = weight[i] * (x[i] * by)
        else:
            return task[INPUT]
    return scratch


@compiled()
def _half_inputs(task, scratch):
    """The address of the inputs, even columns first, normed or gated if they are to be; each
    operation is rounded as the stock ones."""
    rows, columns = task[ROWS], task[COLUMNS]
    spare = scratch + rows * columns * 4
    for row in range(rows):
        out = scratch + row * columns * 4
        numbers = at(out, np.float32)
        if task[_GATED]:
            gate = task[INPUT] + 2 * row * columns * 2
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
        _widen(task[INPUT] + row * columns * 2, out, columns)
        if task[_NORM]:
            weight, eps = at(task[_NORM], np.float32), at(task[_EPS], np.float64)[0]
            by = scale(numbers, columns, np.float32(eps))
            for i in range(columns):
                numbers[i] *= by
            round_all(out, columns)
            # Of the norm's weights too even columns come first, in float32.
            for i in range(columns):
                numbers[i] *= weight[i]
            round_all(out, columns)
    return scratch


@compiled(forceinline=True)
def _widen(source, out, count):
    """As float32, even columns first."""
    words = at(source, np.uint32)
    evens, odds = at(out, np.uint32), at(out + count // 2 * 4, np.uint32)
    for i in range(count // 2):
        evens[i] = words[i] << np.uint32(16)
        odds[i] = words[i] & np.uint32(0xFFFF0000)


@compiled(forceinline=True)
def _finish(task, layer, begin, place, sums, count, half):
    """Write `count` outputs of each row: sums [rows, BLOCK] and the layer's bias, 0 in a closed
    row, added to the residual."""
    bias, closed, residual = task[layer + _BIAS], task[_CLOSED], task[RESIDUAL]
    for row in range(task[ROWS]):
        here = sums + row * BLOCK * 4
        numbers, words = at(here, np.float32), at(here, np.uint32)
        if bias:
            added = at(bias + begin * 4, np.float32)
            for i in range(count):
                numbers[i] += added[i]
        if closed and at(closed, np.uint8)[row]:
            for i in range(count):
                numbers[i] = np.float32(0)
        behind = row * task[OUTPUTS] + place
        if half:
            round_all(here, count)
            if residual:
                for i in range(count):
                    numbers[i] += read(residual + behind * 2, i, half)
                round_all(here, count)
            out = at(task[OUTPUT] + behind * 2, np.uint16)
            for i in range(count):
                out[i] = np.uint16(words[i] >> np.uint32(16))
        else:
            written = at(task[OUTPUT] + behind * 4, np.float32)
            if residual:
                before = at(residual + behind * 4, np.float32)
                for i in range(count):
                    written[i] = before[i] + numbers[i]
            else:
                for i in range(count):
                    written[i] = numbers[i]
