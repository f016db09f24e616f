"""One look at a step: the highest logits, and sums that all measures are made of."""

import functools
import threading
from dataclasses import dataclass

import torch
from torch import Tensor

from .highest import topk
from .kernels.dots import dots
from .kernels.program import Program
from .kernels.task import INPUT, OUTPUT, readable
from .kernels.vocabulary import COUNT, LOOK_ROOM, VALUES, look, parts
from .lockstep import Outputs

CHUNK = 65536
"""Tokens of the vocabulary at a time on a CPU: what is made of them stays in its cache."""


@dataclass(frozen=True)
class Survey:
    """Of logits z, [lanes, vocabulary], and of products of each lane's vectors with lane 0's: x·x,
    x·d and d·d of lane 0's x and d = y - x."""

    sums: Tensor
    """float64 [COUNT, lanes], in the order of `drift.Distributions`."""
    highest: Tensor
    """[lanes, k], equal ones in the order of their tokens."""
    tokens: Tensor
    """int64 [lanes, k]"""
    h_dots: Tensor
    """float64 [3, variants], of h."""
    stream_dots: Tensor
    """float64 [3, 2 layers, variants], of the residual streams after each sublayer."""


def survey(outputs: Outputs, k: int, temperature: float) -> Survey:
    """With at the most as many of the highest as there are tokens."""
    z, h = outputs.z.contiguous(), outputs.h[None].contiguous()
    streams = outputs.streams[1:].contiguous()
    k = min(k, z.shape[-1])
    same = z.dtype == h.dtype == streams.dtype
    if same and readable(z) and readable(h) and readable(streams):
        return _compiled(z, h, streams, k, temperature)
    highest, tokens = topk(z, k)
    sums = _sums(z, highest[:, :1].double(), temperature)
    return Survey(sums, highest, tokens, _dots(h)[:, 0], _dots(streams))


def _compiled(z: Tensor, h: Tensor, streams: Tensor, k: int, temperature: float) -> Survey:
    lanes, vocabulary = z.shape
    highest = torch.empty(lanes, k, dtype=torch.float32)
    tokens = torch.empty(lanes, k, dtype=torch.int64)
    sums = torch.empty(parts(vocabulary), lanes, COUNT, dtype=torch.float64)
    h_dots = torch.empty(3, lanes - 1, dtype=torch.float64)
    stream_dots = torch.empty(3, len(streams), lanes - 1, dtype=torch.float64)
    shapes = z.shape, h.shape, streams.shape
    program = _program(threading.get_ident(), shapes, k, temperature, z.dtype)
    table = program.table
    table[:, INPUT] = [tensor.data_ptr() for tensor in (z, z, z, h, streams)]
    table[1:, OUTPUT] = [tensor.data_ptr() for tensor in (tokens, sums, h_dots, stream_dots)]
    table[:3, VALUES] = highest.data_ptr()
    program.run(LOOK_ROOM)
    return Survey(sums.sum(dim=0).T, highest, tokens, h_dots, stream_dots)


@functools.lru_cache(maxsize=8)
def _program(
    _thread: int, shapes: tuple[torch.Size, ...], k: int, temperature: float, dtype: torch.dtype
) -> Program:
    """Of one thread, step after step."""
    (lanes, vocabulary), h, streams = shapes
    return Program([*look(lanes, vocabulary, k, temperature), dots(*h), dots(*streams)], dtype)


def _sums(z: Tensor, largest: Tensor, temperature: float) -> Tensor:
    """In products by vectors: thin matrix products are slower."""
    lanes, vocabulary = z.shape
    sums = z.new_zeros(COUNT, lanes, dtype=torch.float64)
    for chunk in z.split(CHUNK if z.device.type == "cpu" else vocabulary, dim=-1):
        part = chunk.double()
        # Of one lane's p, e is the same multiple in every chunk.
        e = part - largest
        if temperature != 1:
            e.div_(temperature)
        e.exp_()
        x, e_x = part[0], e[0]
        d, r = part - x, e_x.square()
        # Minus infinity that no probability falls on has no part in a mean.
        empty = e == 0
        sums[0] += e.sum(dim=-1)
        sums[1] += torch.stack([*map(torch.dot, e, part.masked_fill(empty, 0))])
        sums[2] += torch.stack([*map(torch.dot, e, d.masked_fill(empty, 0))])
        sums[3].addmv_(e, e_x)
        sums[4] += torch.stack([*map(torch.dot, e, e)])
        sums[9] += part.sum(dim=-1)
        sums[10] += torch.dot(x, x)
        sums[11].addmv_(d, x)
        sums[12] += torch.stack([*map(torch.dot, d, d)])
        d.masked_fill_(empty[0], 0)
        sums[5].addmv_(d, e_x)
        sums[7].addmv_(d, r)
        squares = d.square_()
        sums[6].addmv_(squares, e_x)
        sums[8].addmv_(squares, r)
    return sums


def _dots(vectors: Tensor) -> Tensor:
    """Of vectors [points, lanes, size]: float64 [3, points, variants]."""
    vectors = vectors.double()
    x, d = vectors[:, :1], vectors[:, 1:] - vectors[:, :1]
    x_dot_x = x.square().sum(dim=-1).expand(d.shape[:-1])
    return torch.stack([x_dot_x, (x * d).sum(dim=-1), d.square().sum(dim=-1)])
