"""Reduction of a step's outputs on a CPU: top-k logits, sums and dot products in one call."""

import functools
import threading

import torch
from torch import Tensor

from ..logit_sums import LogitSums
from .kernels.lane_products import dots
from .kernels.logits import LOOK_ROOM, VALUES, look, parts
from .runtime.instruction import INPUT, OUTPUT
from .runtime.interpreter import Program


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
    sums = torch.empty(parts(vocabulary), lanes, len(LogitSums._fields), dtype=torch.float64)
    h_dots = torch.empty(3, lanes - 1, dtype=torch.float64)
    stream_dots = torch.empty(3, len(streams), lanes - 1, dtype=torch.float64)
    shapes = z.shape, h.shape, streams.shape
    program = _program(threading.get_ident(), shapes, k, temperature, z.dtype)
    table = program.table
    table[:, INPUT] = [tensor.data_ptr() for tensor in (z, z, z, h, streams)]
    table[1:, OUTPUT] = [tensor.data_ptr() for tensor in (tokens, sums, h_dots, stream_dots)]
    table[:3, VALUES] = highest.data_ptr()
    program.run(LOOK_ROOM)
    return sums, highest, tokens, h_dots, stream_dots


@functools.lru_cache(maxsize=8)
def _program(
    _thread: int, shapes: tuple[torch.Size, ...], k: int, temperature: float, dtype: torch.dtype
) -> Program:
    """Instructions that one thread runs step after step."""
    (lanes, vocabulary), h, streams = shapes
    return Program([*look(lanes, vocabulary, k, temperature), dots(*h), dots(*streams)], dtype)
