"""Instructions run one after the other, each on all threads, in one compiled call."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import cfunc, types

from ..kernels.attention import attend, join, rotate
from ..kernels.lane_products import multiply_lanes
from ..kernels.linear import multiply
from ..kernels.logits import add_logit_sums, find_block_maxima, find_top_k
from ..kernels.packing import pack, unpack
from ..kernels.scalars import at, compiled
from . import openmp
from .compile_cache import compile_cached
from .instruction import (
    ATTENTION,
    BLOCK_MAXIMA,
    JOIN,
    KIND,
    LANE_PRODUCTS,
    LINEAR,
    LOGIT_SUMS,
    PACK,
    ROTATE,
    TOP_K,
    Instruction,
)

_INSTRUCTIONS, _TABLE, _FIELDS, _SCRATCH, _SCRATCH_SIZE, _END = range(6)
"""Indices into the plan, int64, that the compiled function is given: number of instructions,
address of the table, fields of an instruction, address of the scratch, its size for a thread."""


class Interpreter:
    """Runs instructions on numbers of one dtype, float32 or bfloat16; for one thread at a time."""

    def __init__(self, instructions: Sequence[Instruction], dtype: torch.dtype) -> None:
        self._instructions = instructions
        size = max(len(instruction.fields) for instruction in instructions)
        self.table = np.zeros((len(instructions), size), np.int64)
        """Fields [instructions, fields], to be changed between runs."""
        for row, instruction in zip(self.table, instructions, strict=True):
            row[: len(instruction.fields)] = instruction.fields
        self._plan = np.zeros(_END, np.int64)
        self._plan[[_INSTRUCTIONS, _FIELDS]] = self.table.shape
        self._plan[_TABLE] = self.table.ctypes.data
        self._function: int = _compiled(dtype).address

    def run(self, scratch_size: int) -> None:
        """Run all instructions; `scratch_size` is the most float32 numbers that a thread needs."""
        size = torch.get_num_threads() * scratch_size
        scratch = torch.empty(size, dtype=torch.float32, device="cpu")
        self._plan[_SCRATCH], self._plan[_SCRATCH_SIZE] = scratch.data_ptr(), scratch_size
        openmp.run(self._function, self._plan.ctypes.data)


@compiled(inline="always")
def _run(plan, is_bfloat16):
    scratch = plan[_SCRATCH] + np.int64(openmp.thread_index()) * plan[_SCRATCH_SIZE] * 4
    for number in range(plan[_INSTRUCTIONS]):
        fields = at(plan[_TABLE] + number * plan[_FIELDS] * 8, np.int64)
        if fields[KIND] == LINEAR:
            multiply(fields, scratch, is_bfloat16)
        elif fields[KIND] == ROTATE:
            rotate(fields, scratch, is_bfloat16)
        elif fields[KIND] == ATTENTION:
            attend(fields, scratch, is_bfloat16)
        elif fields[KIND] == JOIN:
            join(fields, scratch, is_bfloat16)
        elif fields[KIND] == BLOCK_MAXIMA:
            find_block_maxima(fields, is_bfloat16)
        elif fields[KIND] == TOP_K:
            find_top_k(fields, is_bfloat16)
        elif fields[KIND] == LOGIT_SUMS:
            add_logit_sums(fields, scratch, is_bfloat16)
        elif fields[KIND] == LANE_PRODUCTS:
            multiply_lanes(fields, is_bfloat16)
        elif fields[KIND] == PACK:
            pack(fields)
        else:
            unpack(fields)
        openmp.barrier()


def _run_float32(plan):
    _run(plan, False)


def _run_bfloat16(plan):
    _run(plan, True)


@functools.cache
def _compiled(dtype: torch.dtype) -> Any:
    function = {torch.float32: _run_float32, torch.bfloat16: _run_bfloat16}[dtype]
    make = functools.partial(cfunc, types.void(types.CPointer(types.int64)), error_model="numpy")
    return compile_cached(lambda **caching: make(**caching)(function))
