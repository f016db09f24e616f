"""Tasks that run one after the other, each on all threads, in one call."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import cfunc, types

from ..kernels.attention import attend, join, turn
from ..kernels.lane_products import multiply_lanes
from ..kernels.linear import multiply
from ..kernels.logits import add_up, find_highest, find_maxima
from ..kernels.packing import narrow, widen
from ..kernels.scalars import at, compiled
from . import openmp
from .compile_cache import kept
from .instruction import (
    ATTENTION,
    DOTS,
    HIGHEST,
    JOIN,
    KIND,
    MAXIMA,
    NARROW,
    PRODUCT,
    SUMS,
    TURN,
    Task,
)

_TASKS, _TABLE, _FIELDS, _SCRATCH, _ROOM, _END = range(6)


class Program:
    """All on numbers of one dtype, float32 or bfloat16; to be run by one thread at a time."""

    def __init__(self, tasks: Sequence[Task], dtype: torch.dtype) -> None:
        self._tasks = tasks
        self.table = np.zeros((len(tasks), max(len(task.fields) for task in tasks)), np.int64)
        """Of each task its fields, to be changed between runs."""
        for row, task in zip(self.table, tasks, strict=True):
            row[: len(task.fields)] = task.fields
        self._plan = np.zeros(_END, np.int64)
        self._plan[[_TASKS, _FIELDS]] = self.table.shape
        self._plan[_TABLE] = self.table.ctypes.data
        self._function: int = _compiled(dtype).address

    def run(self, room: int) -> None:
        """`room` is how many numbers a thread needs at the most."""
        threads_room = torch.get_num_threads() * room
        scratch = torch.empty(threads_room, dtype=torch.float32, device="cpu")
        self._plan[_SCRATCH], self._plan[_ROOM] = scratch.data_ptr(), room
        openmp.run(self._function, self._plan.ctypes.data)


@compiled(inline="always")
def _run(plan, half):
    scratch = plan[_SCRATCH] + np.int64(openmp.number()) * plan[_ROOM] * 4
    for number in range(plan[_TASKS]):
        task = at(plan[_TABLE] + number * plan[_FIELDS] * 8, np.int64)
        if task[KIND] == PRODUCT:
            multiply(task, scratch, half)
        elif task[KIND] == TURN:
            turn(task, scratch, half)
        elif task[KIND] == ATTENTION:
            attend(task, scratch, half)
        elif task[KIND] == JOIN:
            join(task, scratch, half)
        elif task[KIND] == MAXIMA:
            find_maxima(task, half)
        elif task[KIND] == HIGHEST:
            find_highest(task, half)
        elif task[KIND] == SUMS:
            add_up(task, scratch, half)
        elif task[KIND] == DOTS:
            multiply_lanes(task, half)
        elif task[KIND] == NARROW:
            narrow(task)
        else:
            widen(task)
        openmp.barrier()


def _run_float(plan):
    _run(plan, False)


def _run_half(plan):
    _run(plan, True)


@functools.cache
def _compiled(dtype: torch.dtype) -> Any:
    function = {torch.float32: _run_float, torch.bfloat16: _run_half}[dtype]
    make = functools.partial(cfunc, types.void(types.CPointer(types.int64)), error_model="numpy")
    return kept(lambda **caching: make(**caching)(function))
