"""Measured sparsity of a variant's weights, and its pattern."""

import itertools
from dataclasses import dataclass

from torch import Tensor

from ..model.dropped import Dropped
from ..model.weight_group import WeightGroup
from .pruning.matrices import matrix_stacks

PATTERNS = ((2, 4), (4, 8))
"""N:M patterns to test; the first implies the second."""


@dataclass(frozen=True)
class Sparsity:
    """Sparsity of the matrices inside the decoder layers, dropped sublayers left out."""

    zeros: float
    """Share of zero weights, in 0..1."""
    pattern: str | None
    """N:M, if N of every M consecutive inputs are 0 in every matrix, else None."""


def find_sparsity(group: WeightGroup, dropped: Dropped) -> Sparsity:
    """Count zeros of the matrices in the layers, those of dropped sublayers left out."""
    zeros = total = 0
    left_out = {part for module in group.anatomy.sublayers(dropped) for part in module.modules()}
    fits = dict.fromkeys(PATTERNS, True)
    for layer in group.anatomy.layers:
        stacks = [stack for stack in matrix_stacks(layer.module) if stack.module not in left_out]
        for matrix in itertools.chain(*stacks):
            zero = matrix == 0
            zeros += int(zero.sum())
            total += zero.numel()
            for n, m in PATTERNS:
                fits[n, m] = fits[n, m] and _fits(zero, n, m)
    patterns = [f"{n}:{m}" for (n, m), fit in fits.items() if fit and total]
    return Sparsity(zeros / total if total else 0.0, patterns[0] if patterns else None)


def _fits(zero: Tensor, n: int, m: int) -> bool:
    """Whether at least N of every M consecutive inputs are zero; `zero` is bool [out, in]."""
    if zero.shape[1] % m:
        return False
    return bool((zero.reshape(zero.shape[0], -1, m).sum(dim=-1) >= n).all())
