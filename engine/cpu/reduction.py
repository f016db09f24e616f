"""Reduction of a step's outputs on a CPU: top-k logits, sums and dot products in one call."""

import functools
import threading

import torch
from torch import Tensor

from ..logit_sums import LogitSums
from .kernels.lane_products import lane_products_instruction
from .kernels.logits import LOGITS_SCRATCH_SIZE, TOP_VALUES, logits_instructions, part_count
from .runtime.instruction import INPUT, OUTPUT
from .runtime.interpreter import Interpreter


def reduce(
    z: Tensor, h: Tensor, streams: Tensor, k: int, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Sums [parts, lanes, LogitSums], the k highest logits and their tokens [lanes, k], and dot
    products [3, variants] of h and [3, points, variants] of streams.

    z: [lanes, vocabulary]; h: [1, lanes, hidden]; streams: [points, lanes, hidden].
    """
    lanes, vocabulary = z.shape
    highest = torch.empty(lanes, k, dtype=torch.float32)
    tokens = torch.empty(lanes, k, dtype=torch.int64)
    sums = torch.empty(part_count(vocabulary), lanes, len(LogitSums._fields), dtype=torch.float64)
    h_dots = torch.empty(3, lanes - 1, dtype=torch.float64)
    stream_dots = torch.empty(3, len(streams), lanes - 1, dtype=torch.float64)
    shapes = z.shape, h.shape, streams.shape
    interpreter = _interpreter(threading.get_ident(), shapes, k, temperature, z.dtype)
    table = interpreter.table
    table[:, INPUT] = [tensor.data_ptr() for tensor in (z, z, z, h, streams)]
    table[1:, OUTPUT] = [tensor.data_ptr() for tensor in (tokens, sums, h_dots, stream_dots)]
    table[:3, TOP_VALUES] = highest.data_ptr()
    interpreter.run(LOGITS_SCRATCH_SIZE)
    return sums, highest, tokens, h_dots, stream_dots


@functools.lru_cache(maxsize=8)
def _interpreter(
    _thread: int, shapes: tuple[torch.Size, ...], k: int, temperature: float, dtype: torch.dtype
) -> Interpreter:
    """The interpreter that one thread runs step after step."""
    (lanes, vocabulary), h, streams = shapes
    return Interpreter(
        [
            *logits_instructions(lanes, vocabulary, k, temperature),
            lane_products_instruction(*h),
            lane_products_instruction(*streams),
        ],
        dtype,
    )
