"""Reductions of a step's outputs: top-k logits, and the sums that all measures are made of."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..cpu.backend import backend_for
from ..logit_sums import LogitSums
from ..model.outputs import Outputs
from .top_k import topk

CHUNK = 65536
"""Tokens of the vocabulary at a time on a CPU, so that intermediate results stay in its cache."""


@dataclass(frozen=True)
class Reductions:
    """Reductions of logits z [lanes, vocabulary], and dot products of each lane's vectors y with
    lane 0's x: x·x, x·d and d·d, d = y - x."""

    sums: Tensor
    """`LogitSums`, float64 [parts, lanes, fields], of parts of the vocabulary."""
    highest: Tensor
    """The k highest logits [lanes, k], equal ones in the order of their tokens."""
    tokens: Tensor
    """Their tokens, int64 [lanes, k]."""
    h_dots: Tensor
    """Dot products of h, float64 [3, variants]."""
    stream_dots: Tensor
    """Dot products of the residual streams after each sublayer, float64 [3, 2 layers, variants]."""


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
        # In every chunk e is the same multiple of the lane's probabilities.
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
    """Dot products of vectors [points, lanes, size]: float64 [3, points, variants]."""
    vectors = vectors.double()
    x, d = vectors[:, :1], vectors[:, 1:] - vectors[:, :1]
    x_dot_x = x.square().sum(dim=-1).expand(d.shape[:-1])
    return torch.stack([x_dot_x, (x * d).sum(dim=-1), d.square().sum(dim=-1)])
