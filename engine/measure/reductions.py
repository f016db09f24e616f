"""One look at a step: the highest logits, and sums that all measures are made of."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..cpu.backend import backend_for
from ..logit_sums import LogitSums
from ..model.outputs import Outputs
from .top_k import topk

CHUNK = 65536
"""Tokens of the vocabulary at a time on a CPU: what is made of them stays in its cache."""


@dataclass(frozen=True)
class Reductions:
    """Of logits z, [lanes, vocabulary], and of products of each lane's vectors with lane 0's: x·x,
    x·d and d·d of lane 0's x and d = y - x."""

    sums: Tensor
    """`LogitSums`, float64 [parts, lanes, fields], of parts of the vocabulary."""
    highest: Tensor
    """[lanes, k], equal ones in the order of their tokens."""
    tokens: Tensor
    """int64 [lanes, k]"""
    h_dots: Tensor
    """float64 [3, variants], of h."""
    stream_dots: Tensor
    """float64 [3, 2 layers, variants], of the residual streams after each sublayer."""


def reduce_logits(outputs: Outputs, k: int, temperature: float) -> Reductions:
    """Top-k and the sums behind all measures; k is capped at the vocabulary size."""
    z, h = outputs.z.contiguous(), outputs.h[None].contiguous()
    streams = outputs.streams[1:].contiguous()
    k = min(k, z.shape[-1])
    backend = backend_for(z.device, z.dtype)
    if backend and (reduced := backend.reduce(z, h, streams, k, temperature)):
        return Reductions(*reduced)
    highest, tokens = topk(z, k)
    sums = _sums(z, highest[:, :1].double(), temperature)
    return Reductions(sums, highest, tokens, _dots(h)[:, 0], _dots(streams))


def _sums(z: Tensor, highest: Tensor, temperature: float) -> Tensor:
    """`LogitSums`, float64 [1, lanes, fields], in products by vectors: thin matrix products are
    slower."""
    lanes, vocabulary = z.shape
    table = z.new_zeros(len(LogitSums._fields), lanes, dtype=torch.float64)
    sums = LogitSums(*table)
    for chunk in z.split(CHUNK if z.device.type == "cpu" else vocabulary, dim=-1):
        y = chunk.double()
        # Of one lane's p, e is the same multiple in every chunk.
        e = y - highest
        if temperature != 1:
            e.div_(temperature)
        e.exp_()
        x, e0 = y[0], e[0]
        d, e0_e0 = y - x, e0.square()
        # Minus infinity that no probability falls on has no part in a mean.
        empty = e == 0
        sums.e.add_(e.sum(dim=-1))
        sums.e_y.add_(_dot_rows(e, y.masked_fill(empty, 0)))
        sums.e_d.add_(_dot_rows(e, d.masked_fill(empty, 0)))
        sums.e_e0.addmv_(e, e0)
        sums.e_e.add_(_dot_rows(e, e))
        sums.y.add_(y.sum(dim=-1))
        sums.x_x.add_(torch.dot(x, x))
        sums.x_d.addmv_(d, x)
        sums.d_d.add_(_dot_rows(d, d))
        d.masked_fill_(empty[0], 0)
        sums.e0_d.addmv_(d, e0)
        sums.e0_e0_d.addmv_(d, e0_e0)
        squares = d.square_()
        sums.e0_d_d.addmv_(squares, e0)
        sums.e0_e0_d_d.addmv_(squares, e0_e0)
    return table.T[None]


def _dot_rows(a: Tensor, b: Tensor) -> Tensor:
    """Dot product of each row of a with that of b: [rows]."""
    return torch.stack([*map(torch.dot, a, b)])


def _dots(vectors: Tensor) -> Tensor:
    """Of vectors [points, lanes, size]: float64 [3, points, variants]."""
    vectors = vectors.double()
    x, d = vectors[:, :1], vectors[:, 1:] - vectors[:, :1]
    x_dot_x = x.square().sum(dim=-1).expand(d.shape[:-1])
    return torch.stack([x_dot_x, (x * d).sum(dim=-1), d.square().sum(dim=-1)])
