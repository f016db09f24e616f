"""Reductions of a step's outputs: top-k logits, and the sums that all measures are made of."""

import itertools
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
    chunks = z.split(CHUNK if z.device.type == "cpu" else z.shape[-1], dim=-1)
    parts = [_sums(chunk, highest[:, :1], temperature) for chunk in chunks]
    sums = torch.stack([*itertools.chain(*parts)], dim=-1).unflatten(-1, (len(parts), -1))
    return Reductions(sums.transpose(0, 1), highest, tokens, _dots(h)[:, 0], _dots(streams))


def _sums(z: Tensor, highest: Tensor, temperature: float) -> LogitSums[Tensor]:
    """Sums, float64 [lanes] each, of a part of the vocabulary: z [lanes, tokens].

    `highest` [lanes, 1] are the highest logits of the whole vocabulary. On a GPU each operation is
    a launch, which costs more than its arithmetic.
    """
    y = z.double()
    # In every part e is the same multiple of the lane's probabilities.
    e = y - highest
    if temperature != 1:
        e.div_(temperature)
    e.exp_()
    x, e0 = y[0], e[0]
    d = y - x
    # Minus infinity that no probability falls on is left out: its product with 0 is NaN. Where NaN
    # comes from logits, Σ e of this lane or of lane 0 is NaN, and so is each mean.
    e_y, e_d = (e * y).nansum(dim=-1), (e * d).nansum(dim=-1)
    e_e0, e_e = (e * e0).sum(dim=-1), e.square().sum(dim=-1)
    x_x, x_d, d_d = (x * x).sum(), (d * x).sum(dim=-1), d.square().sum(dim=-1)
    e_sum, y_sum = e.sum(dim=-1), y.sum(dim=-1)
    weights = torch.stack([e0, e0.square()])[:, None]
    d.masked_fill_(e0 == 0, 0)
    # Memory for the weighted d.
    del y, e, x, e0
    weighted = weights * d
    e0_d, e0_e0_d = weighted.sum(dim=-1)
    e0_d_d, e0_e0_d_d = weighted.mul_(d).sum(dim=-1)
    return LogitSums(
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
        x_x=x_x.expand_as(y_sum),
        x_d=x_d,
        d_d=d_d,
    )


def _dots(vectors: Tensor) -> Tensor:
    """Dot products of vectors [points, lanes, size]: float64 [3, points, variants]."""
    # The first is x, the others become d.
    vectors = vectors.to(torch.float64, copy=True)
    x = vectors[:, :1]
    d = vectors[:, 1:].sub_(x)
    with_x, d_d = (vectors * x).sum(dim=-1), d.square().sum(dim=-1)
    return torch.stack([with_x[:, :1].expand_as(d_d), with_x[:, 1:], d_d])
