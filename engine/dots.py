"""Products of vectors of each lane with those of lane 0."""

import torch
from torch import Tensor

from .kernels.dots import dots_task
from .kernels.program import Program
from .kernels.task import readable


def dots(vectors: Tensor) -> Tensor:
    """x·x, x·d and d·d of lane 0's x and d = y - x, float64 [3, points, variants], of vectors
    [points, lanes, size]."""
    points, lanes, _ = vectors.shape
    if readable(vectors):
        out = torch.empty(3, points, lanes - 1, dtype=torch.float64)
        Program([dots_task(vectors, out)], vectors.dtype).run(0)
        return out
    vectors = vectors.double()
    x, d = vectors[:, :1], vectors[:, 1:] - vectors[:, :1]
    x_dot_x = x.square().sum(dim=-1).expand(points, lanes - 1)
    return torch.stack([x_dot_x, (x * d).sum(dim=-1), d.square().sum(dim=-1)])
