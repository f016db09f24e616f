"""One look at all logits: the highest of each lane, and sums that its distribution is known by."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .highest import topk
from .kernels.program import Program
from .kernels.task import readable
from .kernels.vocabulary import COUNT, LOOK_ROOM, look

CHUNK = 65536
"""Tokens of the vocabulary at a time on a CPU: what is made of them stays in its cache."""


@dataclass(frozen=True)
class Survey:
    """Of logits z, [lanes, vocabulary]."""

    sums: Tensor
    """float64 [COUNT, lanes], in the order of `drift.Distributions`."""
    highest: Tensor
    """[lanes, k], equal ones in the order of their tokens."""
    tokens: Tensor
    """int64 [lanes, k]"""


def survey(z: Tensor, k: int, temperature: float) -> Survey:
    """With at the most as many of the highest as there are tokens."""
    k = min(k, z.shape[-1])
    if readable(z):
        found = look(z, k, temperature)
        Program(found.tasks, z.dtype).run(LOOK_ROOM)
        return Survey(found.sums.sum(dim=0).T, found.highest, found.tokens)
    highest, tokens = topk(z, k)
    return Survey(_sums(z, highest[:, :1].double(), temperature), highest, tokens)


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
        sums[3] += torch.stack([*map(torch.dot, e, d.masked_fill(empty, 0))])
        sums[4].addmv_(e, e_x)
        sums[5] += torch.stack([*map(torch.dot, e, e)])
        sums[6] += part.sum(dim=-1)
        sums[7] += torch.stack([*map(torch.dot, part, part)])
        sums[8].addmv_(d, x)
        sums[9] += torch.stack([*map(torch.dot, d, d)])
        d.masked_fill_(empty[0], 0)
        sums[2].addmv_(d, e_x)
        sums[11].addmv_(d, r)
        squares = d.square_()
        sums[10].addmv_(squares, e_x)
        sums[12].addmv_(squares, r)
    return sums
